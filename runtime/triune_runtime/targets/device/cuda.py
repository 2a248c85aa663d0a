"""A CUDA device for a slot runner: memory, one stream, copies, graphs. The only importer of cuda-python's bindings.

Every call is one of the CUDA runtime API, checked; nothing is decided here. Memory lives until the process ends, as an
engine does, or until `close`.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceLost, TriuneError
from .device import ALIGNMENT, Replay

try:
    from cuda.bindings import runtime as cudart
except ImportError as error:
    raise TriuneError(f"the package cuda-bindings cannot be used: {error}", "install it: pip install cuda-bindings") from error

LOG = logging.getLogger(__name__)


class CudaError(TriuneError):
    """A call of the CUDA runtime failed."""


class CudaEvent:
    """See `Event`."""

    def __init__(self, stream: int) -> None:
        self._stream = stream
        flags = cudart.cudaEventDisableTiming
        self._event = _checked(cudart.cudaEventCreateWithFlags(flags), "creating an event")

    def record(self) -> None:
        """See `Event.record`."""
        _checked(cudart.cudaEventRecord(self._event, self._stream), "recording an event")

    def wait(self) -> None:
        """See `Event.wait`."""
        try:
            _checked(cudart.cudaEventSynchronize(self._event), "waiting for the GPU")
        except CudaError as error:
            raise DeviceLost(str(error)) from error


class CudaDevice:
    """See `SharedDevice`: the first GPU that the process sees."""

    def __init__(self) -> None:
        """
        Raises:
            CudaError: there is none that can be used.
        """
        _checked(cudart.cudaSetDevice(0), "choosing the first GPU")
        # Work must not wait for, nor be waited for by, the default stream, which recordings do not allow either.
        self.stream = int(_checked(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking), "creating a stream"))
        self._allocated: list[int] = []
        self._pinned: list[int] = []
        self._graphs: list[Any] = []

    def allocate(self, size: int) -> int:
        """See `Device.allocate`."""
        address = int(_checked(cudart.cudaMalloc(size), f"allocating {size:,} bytes of GPU memory"))
        assert address % ALIGNMENT == 0, f"the CUDA runtime gave {address:#x}"
        self._allocated.append(address)
        _checked(cudart.cudaMemsetAsync(address, 0, size, self.stream), "clearing GPU memory")
        return address

    def host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """See `Device.host`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = int(
            _checked(cudart.cudaHostAlloc(size, cudart.cudaHostAllocDefault), f"pinning {size:,} bytes of host memory")
        )
        self._pinned.append(address)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        memory[...] = 0
        return memory.view(dtype).reshape(shape)

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """See `Device.upload`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(cudart.cudaMemcpyAsync(target, source.ctypes.data, source.nbytes, kind, self.stream), "copying to the GPU")

    def download(self, target: NDArray[Any], source: int) -> None:
        """See `Device.download`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(cudart.cudaMemcpyAsync(target.ctypes.data, source, target.nbytes, kind, self.stream), "copying from the GPU")

    def copy_rows(self, target: int, source: int, *, rows: int, width: int, pitch: int) -> None:
        """See `Device.copy_rows`."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        _checked(
            cudart.cudaMemcpy2DAsync(target, pitch, source, pitch, width, rows, kind, self.stream), "copying within GPU memory"
        )

    def capture(self, queue: Callable[[], None]) -> Replay | None:
        """See `Device.capture`."""
        # Of this thread alone: other threads of the process may allocate meanwhile.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(cudart.cudaStreamBeginCapture(self.stream, mode), "beginning a CUDA graph")
        try:
            queue()
        except TriuneError as error:
            self._give_up(error)
            return None
        try:
            graph = _checked(cudart.cudaStreamEndCapture(self.stream), "ending a CUDA graph")
        except CudaError as error:
            self._give_up(error)
            return None
        launched = _checked(cudart.cudaGraphInstantiate(graph, 0), "instantiating a CUDA graph")
        _checked(cudart.cudaGraphDestroy(graph), "freeing a CUDA graph's description")
        self._graphs.append(launched)

        def replay() -> None:
            _checked(cudart.cudaGraphLaunch(launched, self.stream), "launching a CUDA graph")

        return replay

    def _give_up(self, error: TriuneError) -> None:
        """End a recording that failed, so that the stream can be used again; its errors say no more than `error` does."""
        cudart.cudaStreamEndCapture(self.stream)
        cudart.cudaGetLastError()
        LOG.warning("no CUDA graph; the step is queued call by call: %s", error)

    def synchronize(self) -> None:
        """See `Device.synchronize`.

        Raises:
            DeviceLost: something that was queued failed; CUDA then refuses every further call of the process.
        """
        try:
            _checked(cudart.cudaStreamSynchronize(self.stream), "waiting for the GPU")
        except CudaError as error:
            raise DeviceLost(str(error)) from error

    def event(self) -> CudaEvent:
        """See `SharedDevice.event`."""
        return CudaEvent(self.stream)

    def free_bytes(self) -> int:
        """GPU memory that nobody holds."""
        return self.memory()[0]

    def memory(self) -> tuple[int, int]:
        """See `SharedDevice.memory`."""
        free, total = _checked(cudart.cudaMemGetInfo(), "asking for free GPU memory")
        return int(free), int(total)

    def check(self) -> None:
        """See `SharedDevice.check`."""
        code = cudart.cudaStreamQuery(self.stream)[0]
        if code not in (cudart.cudaError_t.cudaSuccess, cudart.cudaError_t.cudaErrorNotReady):
            try:
                _checked((code,), "asking the GPU whether it is done")
            except CudaError as error:
                raise DeviceLost(str(error)) from error

    def close(self) -> None:
        """See `SharedDevice.close`."""
        self.synchronize()
        for graph in self._graphs:  # before the memory that they use
            _checked(cudart.cudaGraphExecDestroy(graph), "freeing a CUDA graph")
        for address in self._allocated:
            _checked(cudart.cudaFree(address), "freeing GPU memory")
        for address in self._pinned:
            _checked(cudart.cudaFreeHost(address), "freeing pinned host memory")
        self._graphs, self._allocated, self._pinned = [], [], []


def _checked(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call returned beside its error code: nothing, one value or a tuple.

    Raises:
        CudaError: the call failed.
    """
    code, *values = answer
    if code != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(code)
        raise CudaError(
            f"{doing} failed: {text.decode() if isinstance(text, bytes) else text} (CUDA error {int(code)}, {code.name})",
            "see nvidia-smi for what else uses the GPU; a fault of the GPU itself needs a restart",
        )
    return values[0] if len(values) == 1 else tuple(values) or None
