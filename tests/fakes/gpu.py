"""Stand-ins for the CUDA runtime and for TensorRT's package, with the arguments and answers of the real ones.

What they compute is real, on host memory. They are as strict as the documentation: they refuse what it forbids.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda.bindings import runtime as real

from triune_runtime.manifest import EngineManifest
from triune_runtime.runners.host import Compute

OK = real.cudaError_t.cudaSuccess
BAD = real.cudaError_t.cudaErrorInvalidValue
STREAM = 77


class FakeCuda:
    """`cuda.bindings.runtime` over host memory; work is done at the next wait, as late as a GPU may do it.

    `fail` names a function and the error that it gives.
    """

    def __init__(self) -> None:
        self.fail: dict[str, Any] = {}
        self.calls: list[str] = []
        self.queued: list[Callable[[], None]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self._memory: dict[int, Any] = {}  # address -> bytes kept alive
        self.free = 80 << 30
        self.invalidates_captures = False

    def __getattr__(self, name: str) -> Any:
        """Enumerations, and every function by its real name."""
        if not name.startswith("cuda") or not callable(getattr(real, name)) or isinstance(getattr(real, name), type):
            return getattr(real, name)
        function = getattr(self, f"_{name}")

        def called(*arguments: Any) -> Any:
            self.calls.append(name)
            return (self.fail[name], *[None] * 1) if name in self.fail else function(*arguments)

        return called

    def queue(self, do: Callable[[], None], stream: int) -> tuple[Any]:
        assert int(stream) == STREAM, "work on another stream"
        (self.queued if self.capturing is None else self.capturing).append(do)
        return (OK,)

    def inside(self, address: int, size: int) -> bool:
        """Whether the bytes are part of one allocation."""
        return any(base <= address and address + size <= base + len(data) for base, data in self._memory.items())

    def _new(self, size: int) -> tuple[Any, int]:
        assert self.capturing is None, "an allocation while capturing"
        data = (ctypes.c_uint8 * (size + 256))()
        address = ctypes.addressof(data) + -ctypes.addressof(data) % 256
        self._memory[address] = data
        ctypes.memset(address, 0xFF, size)  # not numbers
        return OK, address

    def _cudaSetDevice(self, device: int) -> tuple[Any]:
        return (OK,) if device == 0 else (BAD,)

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, Any]:
        assert flags == real.cudaStreamNonBlocking
        return OK, real.cudaStream_t(STREAM)

    def _cudaMalloc(self, size: int) -> tuple[Any, int]:
        assert size > 0
        return self._new(size)

    def _cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, int]:
        assert flags == real.cudaHostAllocDefault
        return self._new(size)

    def _cudaMemsetAsync(self, address: int, value: int, count: int, stream: int) -> tuple[Any]:
        assert self.inside(address, count)
        return self.queue(lambda: ctypes.memset(address, value, count) and None, stream)

    def _cudaMemcpyAsync(self, target: int, source: int, count: int, kind: Any, stream: int) -> tuple[Any]:
        assert isinstance(kind, real.cudaMemcpyKind) and self.inside(target, count) and self.inside(source, count)
        return self.queue(lambda: ctypes.memmove(target, source, count) and None, stream)

    def _cudaMemcpy2DAsync(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int, kind: Any, stream: int
    ) -> tuple[Any]:
        assert width <= min(target_pitch, source_pitch) and kind == real.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        assert self.inside(target, target_pitch * (height - 1) + width)

        def copy() -> None:
            for row in range(height):
                ctypes.memmove(target + row * target_pitch, source + row * source_pitch, width)

        return self.queue(copy, stream)

    def _cudaStreamSynchronize(self, stream: int) -> tuple[Any]:
        assert self.capturing is None, "waiting while capturing"
        queued, self.queued = self.queued, []
        for do in queued:
            do()
        return (OK,)

    def _cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any]:
        assert self.capturing is None and isinstance(mode, real.cudaStreamCaptureMode)
        self.capturing = []
        return (OK,)

    def _cudaStreamEndCapture(self, stream: int) -> tuple[Any, int]:
        captured, self.capturing = self.capturing, None
        if self.invalidates_captures:
            return real.cudaError_t.cudaErrorStreamCaptureInvalidated, 0
        self.graphs[len(self.graphs) + 1] = captured or []
        return OK, len(self.graphs)

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, int]:
        assert flags == 0
        return OK, graph

    def _cudaGraphDestroy(self, graph: int) -> tuple[Any]:
        return (OK,)

    def _cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any]:
        for do in self.graphs[graph]:
            self.queue(do, stream)
        return (OK,)

    def _cudaGetLastError(self) -> tuple[Any]:
        return (OK,)

    def _cudaMemGetInfo(self) -> tuple[Any, int, int]:
        return OK, self.free, 80 << 30

    def _cudaGetErrorString(self, code: Any) -> tuple[Any, bytes]:
        return real.cudaGetErrorString(code)  # type: ignore[no-any-return]


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
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

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
        plan = manifest.tensorrt
        assert plan is not None
        self.weight_streaming_budget_v2 = self.streamable_weights_size
        self.tensors: dict[str, tuple[str, str, tuple[int, ...], str | None]] = {
            "input_ids": ("INPUT", "INT64", (-1, -1), None),
            "positions": ("INPUT", "INT64", (-1, -1), None),
            "starts": ("INPUT", "INT64", (-1,), None),
            "logit_positions": ("INPUT", "INT64", (-1,), None),
            "logits": ("OUTPUT", "FLOAT", (-1, -1, manifest.vocab_size), None),
        }
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
        config = SimpleNamespace(strategy=None, cache=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        if self._trt.rtx:
            config.create_runtime_cache = lambda: "a cache"
            config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: Any) -> Any:
        assert config.strategy == "user managed" and (not self._trt.rtx or config.cache == "a cache")
        self._trt.contexts.append(FakeContext(self._trt, self))
        return self._trt.contexts[-1]


class FakeContext:
    """IExecutionContext."""

    def __init__(self, trt: FakeTensorRt, engine: FakeEngine) -> None:
        self._trt, self._engine = trt, engine
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
        plan = self._trt.manifest.tensorrt
        assert plan is not None and self.profile is not None
        profile, batch = plan.profiles[self.profile], self.shapes["input_ids"][0]
        assert profile.batch[0] <= batch <= profile.batch[2], "a batch outside the profile"
        for name, (mode, *_, aliased) in self._engine.tensors.items():
            assert mode == "INPUT" or aliased is None or self.addresses[name] == self.addresses[aliased], name
        inputs = {name: self._array(name, shape) for name, shape in self.shapes.items()}
        logits = self._array("logits", (batch, *self.shapes["logit_positions"], self._trt.manifest.vocab_size))
        self._trt.cuda.queue(lambda: np.copyto(logits, self._trt.compute(inputs)), stream)
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        dtype = np.dtype({"INT64": np.int64, "FLOAT": np.float32, "HALF": np.float16}[self._engine.tensors[name][1]])
        size = int(np.prod(shape)) * dtype.itemsize
        assert self._trt.cuda.inside(self.addresses[name], size), f"{name}: outside every allocation"
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
