"""How an engine names the weights of its decoder. Run: pytest tests/runtime/test_cuda_fused_names.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from triune_runtime.errors import ManifestError
from triune_runtime.targets.cuda.fused.names import DecoderNames, Rows
from triune_runtime.targets.cuda.fused.shape import DecoderShape

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
