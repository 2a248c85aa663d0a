"""Loads a TensorRT engine and makes its execution contexts. The runtime's only caller of TensorRT's API.

`tensorrt` and `tensorrt_rtx` have one API, but for what `_runtime_config` and `capturable` look for. docs/tensorrt-runner.md
names the page of each call.
"""

from __future__ import annotations

import logging
import mmap
from collections import deque
from pathlib import Path
from typing import Any

from ...errors import ManifestError, TriuneError
from ...manifest import EngineManifest
from ..device.cuda import CudaDevice
from ..device.plan import DECODE
from ..device.slot_runner import SlotRunner
from ..device.stored import load_weights
from ..device.weights import load_weights_to
from .engine_tensors import EngineTensor, check_tensors, expected_classic, expected_tensors
from .plan import TensorRtPlan
from .preflight import NAMES, load_package

LOG = logging.getLogger(__name__)
_ASIDE = 2 << 30  # bytes of GPU memory for activations and the contexts, where weights are streamed
_LEVELS = {"INTERNAL_ERROR": logging.ERROR, "ERROR": logging.ERROR, "WARNING": logging.WARNING, "INFO": logging.DEBUG}
_loggers: dict[str, Any] = {}  # package -> the logger: TensorRT keeps the first one that a process gives it


class TensorRtError(TriuneError):
    """A call of TensorRT failed."""


def tensorrt_runner(manifest: EngineManifest, folder: Path, *, record: bool = True) -> SlotRunner:
    """The runner of an engine that `preflight.check_engine` accepts.

    Args:
        record: decode by CUDA graphs.

    Raises:
        ManifestError: the plan does not load, or is another engine than engine.json says.
        CudaError, TensorRtError: the GPU has not the memory, or cannot be used.
    """
    device = CudaDevice()
    kind = ClassicEngine if TensorRtPlan.of(manifest).fixed_sizes else TensorRtEngine
    return SlotRunner(manifest, device, kind(manifest, folder, device), record=record)


class TensorRtEngine:
    """See `LoadedEngine`. Its contexts run one after the other on one stream, so they share their memory for activations."""

    def __init__(self, manifest: EngineManifest, folder: Path, device: CudaDevice) -> None:
        plan = TensorRtPlan.of(manifest)
        self._trt: Any = load_package(plan.flavour)
        self._device = device
        self._logger = _logger(self._trt, plan.flavour)
        free = device.free_bytes()
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = _load(self._trt, self._runtime, self._logger, folder / manifest.engine, plan)
        check_tensors(_tensors(self._engine), expected_tensors(manifest, plan), manifest.engine)
        if self._engine.num_optimization_profiles != len(plan.profiles):
            raise ManifestError(
                f"{manifest.engine} has {self._engine.num_optimization_profiles} optimization profiles, engine.json "
                f"{len(plan.profiles)}",
                "build the engine again",
            )
        cache = manifest.kv_bytes_per_token * plan.capacity * manifest.limits.max_sequences
        self._streams_weights = plan.weight_streaming and self._limit_weights(free - cache - _ASIDE)
        self._activation_bytes = max(1, int(self._engine.device_memory_size_v2))
        self._activations = device.allocate(self._activation_bytes)
        self._cache: Any = None  # of TensorRT-RTX's kernels, compiled on this machine: one for all contexts
        self._configs = [self._runtime_config(profile.name == DECODE) for profile in plan.profiles]

    def program(self, profile: int) -> TensorRtProgram:
        """See `LoadedEngine.program`."""
        context = self._engine.create_execution_context(self._configs[profile])
        if context is None:
            raise TensorRtError(f"no execution context: {self._logger.last()}", "is enough GPU memory free? See nvidia-smi")
        if not context.set_optimization_profile_async(profile, self._device.stream):
            raise TensorRtError(f"optimization profile {profile} cannot be chosen: {self._logger.last()}")
        context.set_device_memory(self._activations, self._activation_bytes)
        return TensorRtProgram(context, self._device.stream, self._logger, may_record=not self._streams_weights)

    def _limit_weights(self, room: int) -> bool:
        """Keep no more weights on the GPU than there is room for; whether some must be streamed to it in every run.

        Must come before the first context.
        """
        streamable = int(self._engine.streamable_weights_size)
        kept = min(streamable, max(0, room))
        self._engine.weight_streaming_budget_v2 = kept  # said even where all fit: only that switches streaming off for sure
        if kept < streamable:
            LOG.warning(
                "%.1f of %.1f GB of weights stay in host memory and go to the GPU in every run, which is slow",
                (streamable - kept) / 1e9, streamable / 1e9,
            )  # fmt: skip
        return kept < streamable

    def _runtime_config(self, few_shapes: bool) -> Any:
        """What the contexts of a profile are made with.

        TensorRT-RTX has kernels for any shape and compiles better ones for a shape at hand. That must be done before a step is
        recorded, so at once where there are few shapes; and never where there is one for every length of a prompt, since a
        user would wait for it, or get other bits once it is done in the background.
        """
        trt, config = self._trt, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(config, "create_runtime_cache"):
            self._cache = self._cache or config.create_runtime_cache()
            config.set_runtime_cache(self._cache)
            kinds = trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER if few_shapes else kinds.NONE
        return config


class ClassicEngine:
    """See `LoadedEngine`: one of TensorRT 8.6 to 10 for each profile; weights are inputs, bound to memory that all share."""

    def __init__(self, manifest: EngineManifest, folder: Path, device: CudaDevice) -> None:
        plan = TensorRtPlan.of(manifest)
        self._trt: Any = load_package(plan.flavour)
        self._device, self._logger = device, _logger(self._trt, plan.flavour)
        weights = load_weights(folder)
        addresses = load_weights_to(device, weights, folder)
        self._weights = [(w.name, address, w.shape) for w, address in zip(weights, addresses, strict=True)]
        self._runtime = self._trt.Runtime(self._logger)
        self._engines = []
        for profile, file in zip(plan.profiles, plan.plans, strict=True):
            engine = _load(self._trt, self._runtime, self._logger, folder / file.name, plan)
            check_tensors(_tensors(engine), expected_classic(manifest, plan, profile, weights), file.name)
            self._engines.append(engine)

    def program(self, profile: int) -> TensorRtProgram:
        """See `LoadedEngine.program`."""
        context = self._engines[profile].create_execution_context()
        if context is None:
            raise TensorRtError(f"no execution context: {self._logger.last()}", "is enough GPU memory free? See nvidia-smi")
        program = TensorRtProgram(context, self._device.stream, self._logger, may_record=True, sizes_vary=False)
        for name, address, shape in self._weights:
            program.bind_input(name, address, shape)
        return program


def _load(trt: Any, runtime: Any, logger: Any, path: Path, plan: TensorRtPlan) -> Any:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        engine = runtime.deserialize_cuda_engine(data)  # reads the file as it goes: no copy of it in memory
    if engine is None:
        raise ManifestError(
            f"{NAMES[plan.flavour]} {trt.__version__} cannot load {path}: {logger.last()}",
            "build the engine again for this machine",
        )
    return engine


def _tensors(engine: Any) -> dict[str, EngineTensor]:
    found = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        mode = engine.get_tensor_mode(name).name
        shares = mode == "OUTPUT" and hasattr(engine, "get_aliased_input_tensor")  # TensorRT 10 and before say nothing of it
        found[name] = EngineTensor(
            mode=mode,
            dtype=engine.get_tensor_dtype(name).name,
            shape=tuple(engine.get_tensor_shape(name)),
            same_memory_as=engine.get_aliased_input_tensor(name) if shares else None,
        )
    return found


class TensorRtProgram:
    """See `Program`: an execution context."""

    def __init__(self, context: Any, stream: int, logger: Any, *, may_record: bool, sizes_vary: bool = True) -> None:
        """
        Args:
            sizes_vary: else the shapes that are bound are the engine's own, and TensorRT is not told them.
        """
        self._context, self._stream, self._logger, self._may_record = context, stream, logger, may_record
        self._sizes_vary = sizes_vary
        self._bound: dict[str, tuple[int, tuple[int, ...]]] = {}

    def bind_input(self, name: str, address: int, shape: tuple[int, ...]) -> None:
        """See `Program.bind_input`; what is bound already costs nothing."""
        known = self._bound.get(name)
        if self._sizes_vary and (known is None or known[1] != shape):
            self._must(self._context.set_input_shape(name, shape), f"{name} cannot have the shape {list(shape)}")
        if known is None or known[0] != address:
            self._must(self._context.set_tensor_address(name, address), f"{name} cannot lie at {address:#x}")
        self._bound[name] = (address, shape)

    def bind_output(self, name: str, address: int) -> None:
        """See `Program.bind_output`."""
        if self._bound.get(name) != (address, ()):
            self._must(self._context.set_tensor_address(name, address), f"{name} cannot lie at {address:#x}")
        self._bound[name] = (address, ())

    def enqueue(self) -> None:
        """See `Program.enqueue`."""
        self._must(self._context.execute_async_v3(self._stream), "the engine did not run")

    @property
    def capturable(self) -> bool:
        """See `Program.capturable`. Full TensorRT cannot be asked; with streamed weights a run waits for itself."""
        asked = getattr(self._context, "is_stream_capturable", None)
        return self._may_record and (asked is None or bool(asked(self._stream)))

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise TensorRtError(f"{what}: {self._logger.last()}", "see the server's log")


def _logger(trt: Any, flavour: str) -> Any:
    """The process's logger of that package: what TensorRT says goes to `logging`, its last errors are kept."""
    if flavour not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self._errors: deque[str] = deque(maxlen=4)

            def log(self, severity: Any, message: str) -> None:
                level = _LEVELS.get(severity.name, logging.DEBUG)
                if level >= logging.ERROR:
                    self._errors.append(message)
                LOG.log(level, "%s", message)

            def last(self) -> str:
                """The latest errors, told once."""
                said = "; ".join(self._errors) or "TensorRT gave no reason"
                self._errors.clear()
                return said

        _loggers[flavour] = Logger()
    return _loggers[flavour]
