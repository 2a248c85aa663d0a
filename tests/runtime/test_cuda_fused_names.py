"""How an engine names its decoder's weights; which steps take the kernel. Run: pytest tests/runtime/test_cuda_fused_names.py"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import numpy as np
import pytest

from fakes.host_kernels import HostMemory
from triune_runtime.errors import ManifestError
from triune_runtime.targets.cuda.fused.decoder import FusedDecoder
from triune_runtime.targets.cuda.fused.names import DecoderNames, Rows
from triune_runtime.targets.cuda.fused.program import FusedProgram
from triune_runtime.targets.cuda.fused.shape import DecoderShape, Gpu, table_length

SHAPE = DecoderShape(
    layers=1, hidden=128, heads=4, kv_heads=2, head_dim=64, intermediate=256, vocabulary=100, epsilon=1e-6, dtype="bfloat16",
    block_tokens=128, qkv_bias=True,
)  # fmt: skip
LAYER = {
    "attention_norm": Rows("norm.1"), "query": Rows("qkv"), "key": Rows("qkv", 256), "value": Rows("qkv", 384),
    "query_bias": Rows("bias"), "key_bias": Rows("bias", 256), "value_bias": Rows("bias", 384), "out": Rows("out"),
    "mlp_norm": Rows("norm.2"), "gate": Rows("gate"), "up": Rows("up"), "down": Rows("down"),
}  # fmt: skip
NAMES = DecoderNames(
    shape=SHAPE,
    layers=(LAYER,),
    whole={
        "embedding": Rows("table"),
        "norm": Rows("norm"),
        "head": Rows("table"),
        "cosines": Rows("cos"),
        "sines": Rows("sin"),
    },
    caches=(("0.key", "0.value"),),
)
WEIGHTS = {name: 4096 * i for i, name in enumerate(
    ["norm.1", "qkv", "bias", "out", "norm.2", "gate", "up", "down", "table", "norm", "cos", "sin"], 1)}  # fmt: skip
CACHES = {"0.key": 1 << 20, "0.value": 1 << 21}


def test_names_come_back_from_json() -> None:
    assert DecoderNames.of(json.loads(json.dumps(NAMES.to_json()))) == NAMES


def test_parts_of_a_matrix_begin_at_their_rows() -> None:
    found = NAMES.locate(WEIGHTS, CACHES)
    (layer,) = found.layers
    assert layer.key == WEIGHTS["qkv"] + 256 * 128 * 2 and layer.value_bias == WEIGHTS["bias"] + 384 * 2
    assert (layer.keys, layer.values, layer.query_norm) == (CACHES["0.key"], CACHES["0.value"], 0)
    assert found.head == found.embedding == WEIGHTS["table"]


def in_int4() -> DecoderNames:
    """The same with packed matrices, gate and up in one."""
    layer: dict[str, Rows] = dict(LAYER) | {"gate": Rows("gate"), "up": Rows("gate", 256)}
    matrices = {part: layer[part] for part in ("query", "key", "value", "out", "gate", "up", "down")}
    layer |= {f"{part}_scale": Rows(f"{rows.name}.scale", rows.first) for part, rows in matrices.items()}
    shape = dataclasses.replace(SHAPE, dtype="float16", weight_bits=4, head_bits=8)
    return dataclasses.replace(
        NAMES, shape=shape, layers=(layer,), whole=dict(NAMES.whole) | {"head_scale": Rows("table.scale")}
    )


def test_packed_matrices_and_their_scales_begin_at_their_rows() -> None:
    scales = {f"{name}.scale": 1 << 30 for name in ("qkv", "out", "gate", "down", "table")}
    names = DecoderNames.of(json.loads(json.dumps(in_int4().to_json())))
    found = names.locate(WEIGHTS | scales, CACHES)
    (layer,) = found.layers
    assert layer.key == WEIGHTS["qkv"] + 256 * 64 and layer.up == WEIGHTS["gate"] + 256 * 64
    assert layer.value_scale == (1 << 30) + 384 * 4 * 2 and found.head_scale == 1 << 30
    assert layer.value_bias == WEIGHTS["bias"] + 384 * 2
    assert len(found.table) == table_length(names.shape) == table_length(SHAPE) + 8


@pytest.mark.parametrize("part", ["head_scale", "down_scale"])
def test_packed_matrices_without_scales_are_refused(part: str) -> None:
    raw = in_int4().to_json()
    (raw["whole"] if part == "head_scale" else raw["layers"][0]).pop(part)
    with pytest.raises(ManifestError, match="other weights of the decoder"):
        DecoderNames.of(raw)


@pytest.mark.parametrize(
    "change",
    [{"layers": []}, {"shape": {}}, {"whole": {}}, {"caches": [["0.key"]]}, {"layers": [{"query": ["qkv", 0]}]}, {"layers": 3}],
    ids=str,
)
def test_names_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="decoder"):
        DecoderNames.of(NAMES.to_json() | change)


def test_a_weight_that_is_not_there_is_named() -> None:
    with pytest.raises(ManifestError, match="gate"):
        NAMES.locate({name: at for name, at in WEIGHTS.items() if name != "gate"}, CACHES)


class Recorder:
    """A graph and a kernel that note what they are asked to do."""

    replays = True

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def bind_cache(self, addresses: Any, blocks: int) -> None:
        self.calls.append(("cache", addresses, blocks))

    def launch(
        self, stream: int, grid: Any, block: Any, arguments: Any, shared_bytes: int = 0, cooperative: bool = False
    ) -> None:
        assert cooperative, "all blocks wait for each other"
        self.calls.append((stream, [int(a) for a in arguments[1:6]]))

    def enqueue(self, buffers: Any, shape: Any, bounds: Any, number: int | None = None) -> None:
        self.calls.append(("graph", shape, number))

    def close(self) -> None:
        self.calls.append("closed")


class Step(NamedTuple):
    tokens: int
    sequences: int
    rows: int
    width: int = 9
    input_ids: int = 1
    past_seqlens: int = 2
    block_table: int = 3
    logits: int = 4


def test_steps_of_one_token_a_sequence_alone_take_the_kernel() -> None:
    graph, kernel, memory = Recorder(), Recorder(), HostMemory()
    decoder = FusedDecoder(SHAPE, 2, Gpu(132, 232_448), device=memory, compile_kernel=lambda *_: kernel)
    program = FusedProgram(graph, {2: decoder}, NAMES, WEIGHTS, stream=77)
    program.bind_cache(CACHES, 5)
    bounds = np.zeros(3, np.int32)
    for step in (Step(2, 2, 2), Step(3, 2, 2), Step(2, 2, 1), Step(4, 4, 4)):
        program.enqueue(step, step, bounds, 6)
    program.close()
    assert kernel.calls == [(77, [1, 2, 3, 9, 4])]
    assert graph.calls == [
        ("cache", CACHES, 5), ("graph", Step(3, 2, 2), 6), ("graph", Step(2, 2, 1), 6), ("graph", Step(4, 4, 4), 6), "closed",
    ]  # fmt: skip
