"""A stand-in for the CUDA runtime, with the arguments and answers of the real one and as strict as its documentation.

What it does is real, on host memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from cuda.bindings import runtime as real

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
        self.reached: dict[int, bool] = {}  # events
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

    def _cudaStreamQuery(self, stream: int) -> tuple[Any]:
        return (real.cudaError_t.cudaErrorNotReady if self.queued else OK,)

    def _cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, int]:
        assert flags == real.cudaEventDisableTiming
        self.reached[len(self.reached)] = True
        return OK, len(self.reached) - 1

    def _cudaEventRecord(self, event: int, stream: int) -> tuple[Any]:
        assert self.capturing is None, "an event outside the graph"
        self.reached[event] = False
        return self.queue(lambda: self.reached.update({event: True}), stream)

    def _cudaEventSynchronize(self, event: int) -> tuple[Any]:
        assert self.capturing is None, "waiting while capturing"
        while not self.reached[event]:
            self.queued.pop(0)()
        return (OK,)

    def _cudaFree(self, address: int) -> tuple[Any]:
        assert not self.queued and not self.graphs, "memory is freed that may be in use"
        del self._memory[address]
        return (OK,)

    _cudaFreeHost = _cudaFree

    def _cudaGraphExecDestroy(self, graph: int) -> tuple[Any]:
        del self.graphs[graph]
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
