"""See `StepProgram`: an engine's graph in ONNX Runtime's CUDA provider, over weights and buffers of our own."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import ManifestError, TriuneError
from ...manifest import EngineManifest
from ..device.device import SharedDevice
from ..device.stored import StoredWeight, load_weights
from ..device.weights import load_weights_to
from .device_values import TYPES, value_at
from .plan import CudaPlan
from .protocols import CustomOps, StepBuffers, StepShape

LOG = logging.getLogger(__name__)
PROVIDER = "CUDAExecutionProvider"
_UNRECORDED = -1  # ONNX Runtime's number of runs that it does not record
_INPUTS = ("input_ids", "cu_seqlens", "past_seqlens", "block_table", "attention_metadata", "logits_at")
_Loaded = tuple[onnxruntime.InferenceSession, bool, bool]  # whether it records steps itself; whether it has custom ops


def has_provider() -> bool:
    """Whether the ONNX Runtime that is installed is one for CUDA."""
    return PROVIDER in onnxruntime.get_available_providers()


class OrtProgram:
    """See `StepProgram`. All runs share one binding: a run reads it while it is queued, and a recording keeps addresses."""

    def __init__(
        self, manifest: EngineManifest, folder: Path, device: SharedDevice, stream: int, ops: CustomOps | None = None
    ) -> None:
        """
        Args:
            stream: of `device`, on which everything runs.
            ops: of the engine's second graph, which is then the one to run, if it can be.

        Raises:
            ManifestError: the graph or its weights cannot be loaded, or are not what engine.json says.
            TriuneError: the device has not the memory, or a library of NVIDIA's is missing.
        """
        self._cache = manifest.cache
        self._block_tokens = CudaPlan.of(manifest).block_tokens
        self._vocab_size = manifest.vocab_size
        weights = load_weights(folder)
        _check_types(weights)
        addresses = load_weights_to(device, weights, folder)
        self.addresses = dict(zip((weight.name for weight in weights), addresses, strict=True))  # of the weights, on the device
        self._values = [_value(device, weight, address) for weight, address in zip(weights, addresses, strict=True)]
        named = {weight.name: value for weight, value in zip(weights, self._values, strict=True)}
        with contextlib.redirect_stdout(io.StringIO()) as said:  # what it cannot find it prints
            onnxruntime.preload_dlls()
        self._session, self.replays, has_ops = self._load(manifest, folder, named, stream, ops)
        # To be loaded where the first step shows that an op does not run.
        self._plain: Callable[[], _Loaded] | None = None
        if has_ops:
            self._plain = lambda: self._load(manifest, folder, named, stream, None)
        self._cache_at: tuple[Mapping[str, int], int] | None = None
        if PROVIDER not in self._session.get_providers():
            raise TriuneError(
                f"ONNX Runtime's CUDA provider does not load: {' '.join(said.getvalue().split()) or 'it gives no reason'}",
                "install NVIDIA's libraries beside it: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            )
        wanted, found = {*_INPUTS, *(f"past.{c.name}" for c in self._cache)}, {i.name for i in self._session.get_inputs()}
        if wanted != found:
            raise ManifestError(
                f"{manifest.engine} has other inputs than engine.json says: {', '.join(sorted(wanted ^ found))}",
                "build the engine again",
            )
        self._binding = self._session.io_binding()
        self._options: dict[int, Any] = {}

    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None:
        """See `StepProgram.bind_cache`."""
        self._cache_at = addresses, blocks
        for tensor in self._cache:
            shape = (blocks, self._block_tokens, tensor.heads, tensor.dim)
            self._binding.bind_input(f"past.{tensor.name}", "cuda", 0, TYPES[tensor.dtype].onnx, shape, addresses[tensor.name])

    def enqueue(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None = None) -> None:
        """See `StepProgram.enqueue`.

        Raises:
            TriuneError: ONNX Runtime did not run it.
        """
        try:
            self._run(buffers, shape, bounds, number)
        except Exception as error:
            if self._plain is None:
                raise TriuneError(f"ONNX Runtime did not run a step: {error}", "see the server's log") from error
            self._leave_ops(error)
            self.enqueue(buffers, shape, bounds, number)
        self._plain = None  # what has run once will run again; recordings hold on to it

    def _run(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None) -> None:
        bind = self._binding.bind_input
        bind("input_ids", "cuda", 0, np.int64, (shape.tokens,), buffers.input_ids)
        bind("cu_seqlens", "cuda", 0, np.int32, (shape.sequences + 1,), buffers.cu_seqlens)
        bind("past_seqlens", "cuda", 0, np.int32, (shape.sequences,), buffers.past_seqlens)
        bind("block_table", "cuda", 0, np.int32, (shape.sequences, shape.width), buffers.block_table)
        bind("logits_at", "cuda", 0, np.int64, (shape.rows,), buffers.logits_at)
        self._bounds = onnxruntime.OrtValue.ortvalue_from_numpy(bounds)  # of the host; kept: it is the array's own memory
        self._binding.bind_ortvalue_input("attention_metadata", self._bounds)
        self._binding.bind_output("logits", "cuda", 0, np.float32, (shape.rows, self._vocab_size), buffers.logits)
        self._session.run_with_iobinding(self._binding, self._run_options(_UNRECORDED if number is None else number))

    def _leave_ops(self, error: Exception) -> None:
        """Take the graph of ONNX Runtime's own ops from now on."""
        assert self._plain is not None and self._cache_at is not None
        LOG.warning("no custom ops, since ONNX Runtime did not run a step with them: %s", error)
        load, self._plain = self._plain, None
        del self._binding, self._session  # what memory they have, the other one may need
        self._session, self.replays, _ = load()
        self._binding = self._session.io_binding()
        self.bind_cache(*self._cache_at)

    def close(self) -> None:
        """See `StepProgram.close`."""
        del self._binding, self._session  # the values last: the session refers to them
        self._values = []

    def _load(
        self, manifest: EngineManifest, folder: Path, weights: Mapping[str, Any], stream: int, ops: CustomOps | None
    ) -> _Loaded:
        """The best that there can be."""
        forms: list[tuple[Path, Path | None]] = [(folder / manifest.engine, None)]
        if ops is not None and (library := ops.library()) is not None:
            forms.insert(0, (folder / ops.graph, library))
        for path, library in forms:
            try:
                return _session(path, weights, stream, library, records=True), True, library is not None
            except Exception as error:  # onnxruntime raises many types
                LOG.warning("ONNX Runtime would record no steps of %s itself: %s", path.name, error)
            try:
                return _session(path, weights, stream, library, records=False), False, library is not None
            except Exception as worse:
                if library is None:
                    raise ManifestError(
                        f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {worse}", "build the engine again"
                    ) from worse
                LOG.warning("no custom ops, since ONNX Runtime cannot load %s: %s", path.name, worse)
        raise AssertionError("the last form is loaded or refused")

    def _run_options(self, number: int) -> Any:
        if number not in self._options:
            options = self._options[number] = onnxruntime.RunOptions()
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            options.add_run_config_entry("gpu_graph_id", str(number))
        return self._options[number]


def _session(
    path: Path, weights: Mapping[str, Any], stream: int, library: Path | None, *, records: bool
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if library is not None:
        options.register_custom_ops_library(str(library))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # the builder has chosen every op
    options.enable_mem_pattern = False  # shapes change from run to run
    options.log_severity_level = 3
    for name, value in weights.items():
        options.add_initializer(name, value)
    provider = {
        "device_id": "0",
        "user_compute_stream": str(stream),
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(records)),
        "use_tf32": "0",  # what the builder left in float32, as routers, is to be computed in it
    }
    return onnxruntime.InferenceSession(str(path), options, providers=[(PROVIDER, provider)], enable_fallback=0)


def _check_types(weights: list[StoredWeight]) -> None:
    for weight in weights:
        if weight.dtype not in TYPES:
            raise ManifestError(
                f"the weight {weight.name} is of type {weight.dtype!r}; known: {', '.join(TYPES)}", "build the engine again"
            )


def _value(device: SharedDevice, weight: StoredWeight, address: int) -> onnxruntime.OrtValue:
    """The weight as ONNX Runtime wants it: where it lies, or where that is not possible, in a copy in memory of its own."""
    try:
        return value_at(address, weight.shape, weight.dtype)
    except RuntimeError:
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(weight.shape, TYPES[weight.dtype].onnx, "cuda", 0)
        device.copy_rows(value.data_ptr(), address, rows=1, width=weight.length, pitch=weight.length)
        device.synchronize()
        return value
