"""When an engine runs with custom ops, and that it runs without where they cannot be had. No GPU.

Run: pytest tests/runtime/test_cuda_own_ops_loading.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/cuda.txt")

from fakes.cuda_engines import cuda_manifest
from support.nvrtc import needs_nvrtc
from triune_runtime.errors import ManifestError, TriuneError
from triune_runtime.manifest import Limits
from triune_runtime.targets.cuda import session
from triune_runtime.targets.cuda.nvrtc import NvrtcError, compile_cubin
from triune_runtime.targets.cuda.ops import kernels, loading
from triune_runtime.targets.cuda.plan import OPS_SWITCH, CudaPlan
from triune_runtime.targets.cuda.protocols import StepBuffers, StepShape
from triune_runtime.targets.cuda.session import OrtProgram
from triune_runtime.targets.device.host import HostDevice

PLAN = CudaPlan(dtype="bfloat16", block_tokens=128, custom_ops="ops.onnx")
LIMITS = Limits(max_sequences=2, max_length=32, prefill_chunk=16)


class Module:
    def __init__(self, cubin: bytes, name: str) -> None:
        assert cubin == b"cubin of bfloat16"

    def kernel(self, name: str) -> Any:
        return type("Kernel", (), {"handle": kernels.NAMES.index(name) + 1})()


class Library:
    used: tuple[dict[str, int], str] | None = None

    def __init__(self, path: Path, launch: int, provider: str) -> None:
        assert (launch, provider) == (77, "CUDAExecutionProvider")
        self.path = path

    def use(self, kernels: dict[str, int], dtype: str) -> None:
        Library.used = kernels, dtype


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A GPU, and where the library lies."""
    monkeypatch.setattr(loading, "own_architecture", lambda: "sm_90a")
    monkeypatch.setattr(loading, "compile_cubin", lambda *arguments: b"cubin of bfloat16")
    monkeypatch.setattr(loading, "Module", Module)
    monkeypatch.setattr(loading, "OpsLibrary", Library)
    monkeypatch.setattr(loading, "_launch_address", lambda: 77)
    path = tmp_path / "ops.so"
    path.write_bytes(b"")
    return path


def test_kernels_are_on_the_gpu_before_the_library_is_named(gpu: Path) -> None:
    ops = loading.begin_ops(PLAN, {}, gpu)
    assert ops is not None and ops.graph == "ops.onnx"
    assert ops.library() == gpu and Library.used == ({"swiglu": 1, "rotate": 2}, "bfloat16")


@pytest.mark.parametrize(
    ("plan", "environ", "exists", "said"),
    [
        (PLAN, {OPS_SWITCH: "off"}, True, f"{OPS_SWITCH}=off"),
        (PLAN, {}, False, "make kernels"),
        (CudaPlan(dtype="bfloat16", block_tokens=128), {}, True, ""),
    ],
    ids=["switched off", "not built", "an engine without"],
)
def test_without_custom_ops_one_line_says_why(
    plan: CudaPlan, environ: dict[str, str], exists: bool, said: str, gpu: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert loading.begin_ops(plan, environ, gpu if exists else gpu.with_name("none.so")) is None
    assert said in caplog.text and len(caplog.records) == bool(said)


def test_kernels_that_do_not_compile_leave_the_engine_without(
    gpu: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: Any) -> bytes:
        raise NvrtcError("NVRTC is not there", "install it")

    monkeypatch.setattr(loading, "compile_cubin", refuse)
    ops = loading.begin_ops(PLAN, {}, gpu)
    assert ops is not None and ops.library() is None
    assert "NVRTC is not there; hint: install it" in caplog.text


class Ops:
    graph = "ops.onnx"

    def __init__(self, library: Path | None) -> None:
        self._library = library

    def library(self) -> Path | None:
        return self._library


@pytest.mark.parametrize(
    ("library", "refused", "loaded"),
    [
        (Path("ops.so"), set(), ("ops.onnx", True)),
        (Path("ops.so"), {("ops.onnx", True)}, ("ops.onnx", False)),
        (Path("ops.so"), {("ops.onnx", True), ("ops.onnx", False)}, ("model.onnx", True)),
        (None, set(), ("model.onnx", True)),
        (None, {("model.onnx", True)}, ("model.onnx", False)),
    ],
)
def test_the_best_session_that_onnx_runtime_takes_is_the_engines(
    library: Path | None,
    refused: set[tuple[str, bool]],
    loaded: tuple[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def make(path: Path, weights: Any, stream: int, library: Path | None, *, records: bool) -> tuple[str, bool]:
        assert (library is not None) == (path.name == "ops.onnx")
        if (path.name, records) in refused:
            raise RuntimeError("refused")
        return path.name, records

    monkeypatch.setattr(session, "_session", make)
    program, manifest = object.__new__(OrtProgram), cuda_manifest(8, LIMITS, 128)
    assert program._load(manifest, tmp_path, {}, 0, Ops(library)) == (loaded, loaded[1], loaded[0] == "ops.onnx")


def test_an_engine_whose_every_graph_is_refused_is_to_be_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, records: bool) -> None:
        raise RuntimeError("not a graph")

    monkeypatch.setattr(session, "_session", refuse)
    with pytest.raises(ManifestError, match="not a graph") as raised:
        object.__new__(OrtProgram)._load(cuda_manifest(8, LIMITS, 128), tmp_path, {}, 0, Ops(Path("ops.so")))
    assert raised.value.hint == "build the engine again"


class Graph:
    """Stands in for a session of ONNX Runtime: keeps what is bound, and says what ran."""

    def __init__(self, name: str, fails_at: int | None, ran: list[str]) -> None:
        self.name, self._fails_at, self._ran = name, fails_at, ran
        self.bound = dict[str, int]()

    def get_providers(self) -> list[str]:
        return [session.PROVIDER]

    def get_inputs(self) -> list[Any]:
        caches = (f"past.{tensor.name}" for tensor in cuda_manifest(8, LIMITS, 128).cache)
        return [SimpleNamespace(name=name) for name in (*session._INPUTS, *caches)]

    def io_binding(self) -> Graph:
        return self

    def bind_input(self, name: str, device: str, number: int, kind: Any, shape: tuple[int, ...], address: int) -> None:
        self.bound[name] = address

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self.bound[name] = 0

    def bind_output(self, name: str, device: str, number: int, kind: Any, shape: tuple[int, ...], address: int) -> None:
        self.bound[name] = address

    def run_with_iobinding(self, binding: Graph, options: Any) -> None:
        assert {node.name for node in self.get_inputs()} <= set(binding.bound), "an input is not bound"
        self._ran.append(self.name)
        if len(self._ran) == self._fails_at:
            raise RuntimeError("the kernel of RotaryQKV is refused")


def program_that_fails(monkeypatch: pytest.MonkeyPatch, folder: Path, fails_at: int) -> tuple[Callable[[], None], list[str]]:
    """A step of an engine with custom ops, of which that run fails; and what has run so far."""
    manifest, ran = cuda_manifest(8, LIMITS, 128), list[str]()

    def make(path: Path, weights: Any, stream: int, library: Path | None, *, records: bool) -> Graph:
        return Graph(path.name, fails_at if library else None, ran)

    monkeypatch.setattr(session, "_session", make)
    monkeypatch.setattr(session, "load_weights", lambda folder: [])
    monkeypatch.setattr(session, "load_weights_to", lambda *arguments: [])
    monkeypatch.setattr(session.onnxruntime, "preload_dlls", lambda: None, raising=False)
    program = OrtProgram(manifest, folder, HostDevice(), 0, Ops(Path("ops.so")))
    program.bind_cache({tensor.name: 256 for tensor in manifest.cache}, 2)
    buffers, shape = StepBuffers(*range(256, 256 * 7, 256)), StepShape(tokens=2, sequences=1, rows=1, width=1)
    return lambda: program.enqueue(buffers, shape, np.array([2, 2, 2], np.int32)), ran


def test_an_op_that_does_not_run_at_first_leaves_its_step_and_all_others_to_the_graph_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step, ran = program_that_fails(monkeypatch, tmp_path, fails_at=1)
    with caplog.at_level(logging.WARNING):
        step()
        step()
    assert ran == ["ops.onnx", "model.onnx", "model.onnx"]
    assert [record.getMessage() for record in caplog.records] == [
        "no custom ops, since ONNX Runtime did not run a step with them: the kernel of RotaryQKV is refused"
    ]


def test_a_step_that_fails_after_others_ran_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recordings hold on to the session by then."""
    step, ran = program_that_fails(monkeypatch, tmp_path, fails_at=2)
    step()
    with pytest.raises(TriuneError, match="did not run a step: the kernel of RotaryQKV is refused"):
        step()
    assert ran == ["ops.onnx", "ops.onnx"]


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_kernels_compile_for_gpus(architecture: str, dtype: str) -> None:
    options = (*kernels.options(dtype), *kernels.FAST)
    assert compile_cubin(kernels.source(), kernels.SOURCE, architecture, options)
