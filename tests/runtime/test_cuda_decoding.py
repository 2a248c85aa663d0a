"""When decodes take the fused kernel, and what is said when they do not. Run: pytest tests/runtime/test_cuda_decoding.py"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/cuda.txt")

from fakes.host_kernels import HostMemory
from triune_runtime.errors import ManifestError
from triune_runtime.manifest import Limits
from triune_runtime.targets.cuda import decoding
from triune_runtime.targets.cuda.fused.names import DecoderNames, Rows
from triune_runtime.targets.cuda.fused.program import FusedProgram
from triune_runtime.targets.cuda.fused.shape import DecoderShape
from triune_runtime.targets.cuda.nvrtc import NvrtcError
from triune_runtime.targets.cuda.plan import FUSED_SWITCH, CudaPlan

SHAPE = DecoderShape(
    layers=1, hidden=128, heads=4, kv_heads=2, head_dim=64, intermediate=256, vocabulary=100, epsilon=1e-6, dtype="bfloat16",
    block_tokens=128,
)  # fmt: skip
LAYER = {
    name: Rows(name) for name in ("attention_norm", "query", "key", "value", "out", "mlp_norm", "gate", "up", "down")
}  # fmt: skip
WHOLE = {name: Rows(name) for name in ("embedding", "norm", "head", "cosines", "sines")}
WEIGHTS = {name: 256 * number for number, name in enumerate((*LAYER, *WHOLE))}


class Graph:
    """See `Graph` of fused.program; computes nothing."""

    replays = True

    def bind_cache(self, *arguments: Any) -> None: ...
    def enqueue(self, *arguments: Any) -> None: ...
    def close(self) -> None: ...


class Memory(HostMemory):
    stream = 7


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Options of what was compiled, for a GPU as an H100 is."""
    asked: list[tuple[str, ...]] = []

    def compile_cubin(source: str, name: str, architecture: str, options: tuple[str, ...]) -> bytes:
        assert architecture == "sm_90a" and "decode_step" in source
        asked.append(options)
        return b"cubin"

    class Module:
        def __init__(self, cubin: bytes, name: str) -> None:
            assert cubin == b"cubin"

        def kernel(self, name: str) -> str:
            return name

    monkeypatch.setattr(decoding, "own_sizes", lambda: (132, 232_448))
    monkeypatch.setattr(decoding, "own_architecture", lambda: "sm_90a")
    monkeypatch.setattr(decoding, "compile_cubin", compile_cubin)
    monkeypatch.setattr(decoding, "Module", Module)
    return asked


def plan(**changes: Any) -> CudaPlan:
    shape = dataclasses.replace(SHAPE, **changes)
    names = DecoderNames(shape=shape, layers=(LAYER,), whole=WHOLE, caches=(("0.key", "0.value"),))
    return CudaPlan(dtype=shape.dtype, block_tokens=shape.block_tokens, decoder=names.to_json())


def test_the_kernel_is_compiled_for_each_batch_that_occurs(compiled: list[tuple[str, ...]]) -> None:
    compiling, graph = decoding.compile_decoders(plan(), Limits(max_sequences=5), {}), Graph()
    assert compiling is not None
    program = compiling.in_front_of(graph, WEIGHTS, Memory())
    assert isinstance(program, FusedProgram)
    assert sorted(option for options in compiled for option in options if option.startswith("-DBATCH=")) == [
        "-DBATCH=1", "-DBATCH=2", "-DBATCH=4",
    ]  # fmt: skip


def test_the_switch_leaves_all_to_the_graph(compiled: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert decoding.compile_decoders(plan(), Limits(), {FUSED_SWITCH: "off"}) is None
    assert not compiled and f"{FUSED_SWITCH}=off" in caplog.text


def test_an_engine_without_a_decoder_takes_the_graph(compiled: list[tuple[str, ...]]) -> None:
    assert decoding.compile_decoders(CudaPlan(dtype="float16", block_tokens=128), Limits(), {}) is None
    assert not compiled


def test_sizes_that_the_kernel_does_not_compute_take_the_graph(
    compiled: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert decoding.compile_decoders(plan(head_dim=96), Limits(), {}) is None
    assert not compiled and "not for a model of these sizes on this GPU" in caplog.text


def test_a_kernel_that_does_not_compile_leaves_all_to_the_graph(
    compiled: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> bytes:
        raise NvrtcError("NVRTC is not there", "install it")

    monkeypatch.setattr(decoding, "compile_cubin", fails)
    compiling, graph = decoding.compile_decoders(plan(), Limits(), {}), Graph()
    assert compiling is not None and compiling.in_front_of(graph, WEIGHTS, Memory()) is graph
    assert "the graph computes them all: NVRTC is not there" in caplog.text


def test_a_plan_that_does_not_fit_is_refused(compiled: list[tuple[str, ...]]) -> None:
    with pytest.raises(ManifestError, match="decoder"):
        decoding.compile_decoders(CudaPlan(dtype="float16", block_tokens=128, decoder={"shape": {}}), Limits(), {})
