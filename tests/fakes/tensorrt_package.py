"""A stand-in for TensorRT's package: an engine on the CUDA stand-in, with the real one's arguments and answers.

It refuses what the documentation forbids: changing a context that was captured, capturing before a run, ...
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device.host import Compute
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from .cuda_runtime import STREAM, FakeCuda


def named(name: str) -> SimpleNamespace:
    """A member of an enumeration."""
    return SimpleNamespace(name=name)


class FakeTensorRt:
    """TensorRT's package: `Runtime.deserialize_cuda_engine` gives an engine of `manifest` that runs `compute`.

    Args:
        rtx: whether it is TensorRT-RTX, which has a cache of compiled kernels and can be asked about capture.
    """

    __version__ = "1.7.1.116"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", NONE="none")

    class ILogger:
        def __init__(self) -> None: ...

    def __init__(self, manifest: EngineManifest, compute: Compute, cuda: FakeCuda, *, rtx: bool = True) -> None:
        self.manifest, self.compute, self.cuda, self.rtx = manifest, compute, cuda, rtx
        self.changes: dict[str, Any] = {}  # of the engine: name -> (mode, dtype, shape, aliased input)
        self.plan = b""
        self.says: list[str] = []  # errors of the next call that fails
        self.capturable = True
        self.enqueue_fails = self.enqueue_fails_captured = False
        self.contexts: list[FakeContext] = []
        self.engine: FakeEngine | None = None

    def Runtime(self, logger: Any) -> Any:
        self.logger = logger

        def deserialize_cuda_engine(data: Any) -> Any:
            self.plan = bytes(data)
            if self.says:
                for text in self.says:
                    logger.log(named("ERROR"), text)
                return None
            self.engine = FakeEngine(self)
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


class FakeEngine:
    """ICudaEngine."""

    num_optimization_profiles = 2
    device_memory_size_v2 = 4096
    streamable_weights_size = 10 << 30

    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt, manifest = trt, trt.manifest
        plan = TensorRtPlan.of(manifest)
        self.weight_streaming_budget_v2 = self.streamable_weights_size
        self.tensors: dict[str, tuple[str, str, tuple[int, ...], str | None]] = {
            "input_ids": ("INPUT", "INT64", (-1, -1), None),
            "positions": ("INPUT", "INT64", (-1, -1), None),
            "starts": ("INPUT", "INT64", (-1,), None),
            "logit_positions": ("INPUT", "INT64", (-1,), None),
            "logits": ("OUTPUT", "FLOAT", (-1, -1, manifest.vocab_size), None),
        }
        if plan.best_tokens:
            self.tensors["best_tokens"] = ("OUTPUT", "INT64", (-1, -1), None)
            self.tensors["best_logits"] = ("OUTPUT", "FLOAT", (-1, -1), None)
        for c in manifest.cache:
            shape = (-1, c.heads, plan.capacity, c.dim)
            dtype = {"float32": "FLOAT", "float16": "HALF"}[c.dtype]
            self.tensors[f"past.{c.name}"] = ("INPUT", dtype, shape, None)
            self.tensors[f"present.{c.name}"] = ("OUTPUT", dtype, shape, f"past.{c.name}")
        self.tensors |= trt.changes

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return named(self.tensors[name][0])

    def get_tensor_dtype(self, name: str) -> Any:
        return named(self.tensors[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.tensors[name][3]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(strategy=None, cache=None, dynamic_shapes_kernel_specialization_strategy=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        if self._trt.rtx:
            config.create_runtime_cache = lambda: "a cache"
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: Any) -> Any:
        assert config.strategy == "user managed" and (not self._trt.rtx or config.cache == "a cache")
        self._trt.contexts.append(FakeContext(self._trt, self, config.dynamic_shapes_kernel_specialization_strategy))
        return self._trt.contexts[-1]


class FakeContext:
    """IExecutionContext."""

    def __init__(self, trt: FakeTensorRt, engine: FakeEngine, kernels: str | None) -> None:
        self._trt, self._engine, self.kernels = trt, engine, kernels
        self.profile: int | None = None
        self._memory = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.captured = self._flushed = False
        if trt.rtx:
            self.is_stream_capturable = lambda stream: trt.capturable

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return stream == STREAM and profile < 2

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0 and size >= self._engine.device_memory_size_v2 and self._trt.cuda.inside(memory, size)
        self._memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.captured, "modifying a context from which a graph was captured"
        self._flushed = False
        self.shapes[name] = shape
        known = self._engine.tensors[name][2]
        return len(known) == len(shape) and all(k in (-1, s) for k, s in zip(known, shape, strict=True))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert not self.captured, "modifying a context from which a graph was captured"
        self.addresses[name] = memory
        return name in self._engine.tensors and memory % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        capturing = self._trt.cuda.capturing is not None
        if self._trt.enqueue_fails or (capturing and self._trt.enqueue_fails_captured):
            self._trt.logger.log(named("ERROR"), "a kernel could not be launched")
            return False
        assert self._memory and self.addresses.keys() == self._engine.tensors.keys(), "a tensor without an address"
        assert not capturing or self._flushed, "captured before a run with these shapes"
        self._flushed, self.captured = True, self.captured or capturing
        plan = TensorRtPlan.of(self._trt.manifest)
        assert self.profile is not None
        profile, batch = plan.profiles[self.profile], self.shapes["input_ids"][0]
        assert profile.batch[0] <= batch <= profile.batch[2], "a batch outside the profile"
        for name, (mode, *_, aliased) in self._engine.tensors.items():
            assert mode == "INPUT" or aliased is None or self.addresses[name] == self.addresses[aliased], name
        inputs = {name: self._array(name, shape) for name, shape in self.shapes.items()}
        rows = (batch, *self.shapes["logit_positions"])
        outputs = {name: self._array(name, rows) for name in ("best_tokens", "best_logits") if name in self._engine.tensors}
        outputs["logits"] = self._array("logits", (*rows, self._trt.manifest.vocab_size))

        def run() -> None:
            found = self._trt.compute(inputs)
            for name, array in outputs.items():
                np.copyto(array, found[name], casting="no")

        self._trt.cuda.queue(run, stream)
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = np.dtype({"INT64": np.int64, "FLOAT": np.float32, "HALF": np.float16}[self._engine.tensors[name][1]])
        size = int(np.prod(shape)) * dtype.itemsize
        assert self._trt.cuda.inside(self.addresses[name], size), f"{name}: outside every allocation"
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
