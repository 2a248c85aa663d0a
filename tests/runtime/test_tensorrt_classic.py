"""Engines of TensorRT 8.6 to 10 behind their adapter, over a stand-in for the package that has what 8.6 has and no more.

Run: pytest tests/runtime/test_tensorrt_classic.py
"""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: requirements/tensorrt.txt")

from fakes.classic_engines import Sizes, classic, in_folder, in_place, on_host
from fakes.cuda_runtime import STREAM, FakeCuda
from fakes.tiny_llama import tiny_checkpoint
from support.model_steps import LIMITS, assert_computes, by_reference
from triune_runtime.errors import ManifestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Work
from triune_runtime.targets.device import cuda
from triune_runtime.targets.device.stored import save_weights
from triune_runtime.targets.tensorrt import runner as tensorrt
from triune_runtime.targets.tensorrt.engine_tensors import EngineTensor, expected_classic
from triune_runtime.targets.tensorrt.plan import PlanFile, TensorRtPlan
from triune_runtime.targets.tensorrt.runner import tensorrt_runner

SIZES = Sizes(prefill=(4, 16), decode=(1, 3))
_NUMPY = {"INT32": np.int32, "FLOAT": np.float32, "HALF": np.float16}


class Package:
    """`tensorrt` 8.6: an engine has no memory of its caller's, no aliases, no streamed weights, and no configuration."""

    __version__ = "8.6.0"

    class ILogger:
        def __init__(self) -> None: ...

    def __init__(self, engines: dict[bytes, dict[str, EngineTensor]], compute: Any, cuda: FakeCuda) -> None:
        self.engines, self.compute, self.cuda = engines, compute, cuda
        self.contexts: list[Context] = []

    def Runtime(self, logger: Any) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=lambda data: Engine(self, self.engines[bytes(data)]))


class Engine:
    def __init__(self, package: Package, tensors: dict[str, EngineTensor]) -> None:
        self._package, self.tensors = package, tensors
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name].mode)

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.tensors[name].dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def create_execution_context(self) -> Context:
        self._package.contexts.append(Context(self._package, self.tensors))
        return self._package.contexts[-1]


class Context:
    """It is told addresses alone: its shapes are the engine's."""

    def __init__(self, package: Package, tensors: dict[str, EngineTensor]) -> None:
        self._package, self.tensors = package, tensors
        self._addresses: dict[str, int] = {}
        self.captured = False

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert not self.captured, "modifying a context from which a graph was captured"
        self._addresses[name] = memory
        return name in self.tensors and memory % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM and self._addresses.keys() == self.tensors.keys(), "a tensor without an address"
        self.captured = self.captured or self._package.cuda.capturing is not None
        arrays = {name: self._array(name, tensor) for name, tensor in self.tensors.items()}
        inputs = {name: arrays[name] for name, tensor in self.tensors.items() if tensor.mode == "INPUT"}

        def run() -> None:
            for name, array in self._package.compute(inputs).items():
                np.copyto(arrays[name], array, casting="no")

        self._package.cuda.queue(run, stream)
        return True

    def _array(self, name: str, tensor: EngineTensor) -> Any:
        dtype = np.dtype(_NUMPY[tensor.dtype])
        size = int(np.prod(tensor.shape)) * dtype.itemsize
        assert self._package.cuda.inside(self._addresses[name], size), f"{name}: outside every allocation"
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self._addresses[name]), dtype).reshape(tensor.shape)


def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EngineManifest, Package]:
    """A manifest whose plans and weights lie in `tmp_path`, and the package that runs them."""
    engine = classic(tiny_checkpoint(hidden_size=64, intermediate_size=96), tmp_path, max_length=LIMITS.max_length)
    save_weights(engine.stored, tmp_path)
    manifest = on_host(engine, LIMITS, SIZES).manifest
    plan = TensorRtPlan.of(manifest)
    names = [f"{n}.plan" for n in range(len(plan.profiles))]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    plan = dataclasses.replace(plan, plans=tuple(PlanFile(name=name, bytes=6, sha256="") for name in names))
    manifest = dataclasses.replace(manifest, engine=names[0], plan=plan.to_json())
    computes, fake = in_folder(tmp_path), FakeCuda()
    package = Package(
        {n.encode(): expected_classic(manifest, plan, p, engine.stored) for n, p in zip(names, plan.profiles, strict=True)},
        lambda inputs: in_place(computes, inputs),  # which computes with the weights that are bound
        fake,
    )
    monkeypatch.setattr(cuda, "cudart", fake)
    monkeypatch.setattr(tensorrt, "load_package", lambda flavour: package)
    monkeypatch.setattr(tensorrt, "_loggers", {})
    return manifest, package


def test_engines_of_several_sizes_compute_the_model_with_weights_that_are_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, package = served(tmp_path, monkeypatch)
    checkpoint = tiny_checkpoint(hidden_size=64, intermediate_size=96)
    assert_computes(tensorrt_runner(manifest, tmp_path), by_reference(checkpoint), 4e-2)
    assert sorted(c.captured for c in package.contexts) == [False, False, True]  # of prompts; of batches up to three
    assert "cudaGraphLaunch" in package.cuda.calls


def test_batches_of_several_sizes_that_are_not_recorded_each_run_their_own_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, _ = served(tmp_path, monkeypatch)
    recorded, queued = (tensorrt_runner(manifest, tmp_path, record=record) for record in (True, False))
    for start in range(4):
        for count in (1, 3):
            work = [Work(slot, start, (5 + slot + start,)) for slot in range(count)]
            assert np.array_equal(recorded.run(work), queued.run(work)), (start, count)


def test_an_engine_of_other_tensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, package = served(tmp_path, monkeypatch)
    other = EngineTensor("INPUT", "INT32", (1, 8))
    package.engines[b"1.plan"] = package.engines[b"1.plan"] | {"positions": other}
    with pytest.raises(ManifestError, match=r"1\.plan has positions as INPUT INT32 \[1, 8\]; engine.json makes it"):
        tensorrt_runner(manifest, tmp_path)
