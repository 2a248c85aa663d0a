"""A device without a GPU: memory in NumPy, and programs that are a function of arrays. For tests and for trying things out.

As lazy as a device may be: what is queued is done at `synchronize`, with what the arrays hold by then. And stricter than a
GPU: an address outside its allocation, a tensor that is not bound, a shape outside the profile, a cache that is not updated
in place or bindings that change under a recording are assertions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifest import EngineManifest
from .device import ALIGNMENT, Replay, aligned
from .plan import Profile, slot_plan

Compute = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Inputs by name -> `logits`, and `best_tokens` and `best_logits` where the engine has them, by name.

It writes the new positions into the `past.NAME` arrays."""

_FIRST, _GAP = 1 << 20, 1 << 16  # addresses: of the first allocation, and between two


class HostEvent:
    """See `Event`."""

    def __init__(self, device: HostDevice) -> None:
        self._device = device
        self._recorded = 0  # how many have been recorded, and how many of these were come to
        self._reached = 0

    def record(self) -> None:
        """See `Event.record`."""
        assert not self._device.recording, "an event in a recording"
        self._recorded += 1
        self._device.queue(self._reach)

    def wait(self) -> None:
        """See `Event.wait`."""
        self._device.run_until(lambda: self._reached == self._recorded)

    def _reach(self) -> None:
        self._reached += 1


class HostDevice:
    """See `SharedDevice`."""

    def __init__(self, size: int = 1 << 30) -> None:
        """
        Args:
            size: bytes of memory in all, as `memory` says; more can be had.
        """
        self.size = size
        self._memory: dict[int, NDArray[np.uint8]] = {}  # address -> bytes
        self._host: list[NDArray[Any]] = []
        self._queued: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        self._next = _FIRST
        self.downloaded = 0  # bytes so far
        self.allocations = 0  # of the device and of the host, so far

    def allocate(self, size: int) -> int:
        """See `Device.allocate`."""
        assert self._recording is None, "an allocation cannot be recorded"
        address = self._next
        self._memory[address] = np.zeros(size, np.uint8)
        self.allocations += 1
        self._next += aligned(size) + _GAP
        return address

    def host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """See `Device.host`."""
        self._host.append(np.zeros(shape, dtype))
        self.allocations += 1
        return self._host[-1]

    def upload(self, target: int, source: NDArray[Any]) -> None:
        """See `Device.upload`."""
        array, memory = self._pinned(source), self.view(target, source.shape, source.dtype)
        self.queue(lambda: np.copyto(memory, array))

    def download(self, target: NDArray[Any], source: int) -> None:
        """See `Device.download`."""
        array, memory = self._pinned(target), self.view(source, target.shape, target.dtype)

        def copy() -> None:
            np.copyto(array, memory)
            self.downloaded += array.nbytes

        self.queue(copy)

    def copy_rows(self, target: int, source: int, *, rows: int, width: int, pitch: int) -> None:
        """See `Device.copy_rows`."""
        assert width <= pitch, f"rows of {width} bytes every {pitch} bytes"
        size = (rows - 1) * pitch + width  # what lies behind the last row's width may be no memory
        new, old = (
            np.lib.stride_tricks.as_strided(self.view(address, (size,), np.dtype(np.uint8)), (rows, width), (pitch, 1))
            for address in (target, source)
        )
        self.queue(lambda: np.copyto(new, old))

    def capture(self, queue: Callable[[], None]) -> Replay | None:
        """See `Device.capture`."""
        assert self._recording is None, "a recording within a recording"
        recording: list[Callable[[], None]] = []
        self._recording = recording
        try:
            queue()
        finally:
            self._recording = None
        return lambda: self._queued.extend(recording)

    def synchronize(self) -> None:
        """See `Device.synchronize`."""
        assert self._recording is None, "waiting cannot be recorded"
        queued, self._queued = self._queued, []
        for do in queued:
            do()

    def event(self) -> HostEvent:
        """See `SharedDevice.event`."""
        return HostEvent(self)

    def memory(self) -> tuple[int, int]:
        """See `SharedDevice.memory`."""
        return self.size - sum(m.nbytes for m in self._memory.values()), self.size

    def check(self) -> None:
        """See `SharedDevice.check`: it always answers."""

    def close(self) -> None:
        """See `SharedDevice.close`."""
        assert not self._queued, "closed with work in the queue"
        self._memory.clear()
        self._host.clear()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Do what is queued, one after the other, until `done`."""
        assert self._recording is None, "waiting cannot be recorded"
        while not done():
            self._queued.pop(0)()

    @property
    def recording(self) -> bool:
        return self._recording is not None

    @property
    def queued(self) -> int:
        """How many things wait to be done."""
        return len(self._queued)

    @property
    def allocated_bytes(self) -> int:
        """Of the device and of the host."""
        return sum(m.nbytes for m in self._memory.values()) + sum(a.nbytes for a in self._host)

    def queue(self, do: Callable[[], None]) -> None:
        """Do it at the next `synchronize`, or record it."""
        (self._queued if self._recording is None else self._recording).append(do)

    def view(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The device's memory from `address` on, as an array."""
        size = math.prod(shape) * dtype.itemsize
        base = max((b for b in self._memory if b <= address), default=0)
        assert base and address + size <= base + len(self._memory[base]), f"{size} bytes at {address}: outside every allocation"
        return self._memory[base][address - base : address - base + size].view(dtype).reshape(shape)

    def _pinned(self, array: NDArray[Any]) -> NDArray[Any]:
        assert array.flags.c_contiguous and any(np.shares_memory(array, own) for own in self._host), (
            "a copy from or to an array that is no contiguous part of one of `host`"
        )
        return array


class HostEngine:
    """See `LoadedEngine`: `compute` behind the inputs and profiles of `manifest`."""

    def __init__(self, manifest: EngineManifest, device: HostDevice, compute: Compute) -> None:
        self._manifest, self._device, self._compute = manifest, device, compute
        self.programs: list[HostProgram] = []

    def program(self, profile: int) -> HostProgram:
        """See `LoadedEngine.program`."""
        chosen = slot_plan(self._manifest).profiles[profile]
        self.programs.append(HostProgram(self._manifest, chosen, self._device, self._compute))
        return self.programs[-1]


class HostProgram:
    """See `Program`."""

    capturable = True

    def __init__(self, manifest: EngineManifest, profile: Profile, device: HostDevice, compute: Compute) -> None:
        self.profile, self._plan = profile, slot_plan(manifest)
        self._manifest, self._device, self._compute = manifest, device, compute
        self._inputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._outputs: dict[str, int] = {}
        self._changed = True
        self.recorded = False  # from then on its bindings must not change

    def bind_input(self, name: str, address: int, shape: tuple[int, ...]) -> None:
        """See `Program.bind_input`."""
        self._bind(name, address)
        self._inputs[name] = (address, shape)

    def bind_output(self, name: str, address: int) -> None:
        """See `Program.bind_output`."""
        self._bind(name, address)
        self._outputs[name] = address

    def enqueue(self) -> None:
        """See `Program.enqueue`."""
        if self._device.recording:
            assert self.capturable and not self._changed, "recorded before a run with these bindings, or against the answer"
            self.recorded = True
        self._changed = False
        inputs, outputs = self._checked()

        def run() -> None:
            found = self._compute(inputs)
            for name, array in outputs.items():
                np.copyto(array, found[name], casting="no")

        self._device.queue(run)

    def bound(self) -> dict[str, NDArray[Any]]:
        """The inputs as arrays in the device's memory."""
        return self._checked()[0]

    def _bind(self, name: str, address: int) -> None:
        assert address % ALIGNMENT == 0, f"{name} at {address}, no multiple of {ALIGNMENT}"
        assert not self.recorded, f"{name} is bound anew, but a recording has its address"
        self._changed = True

    def _checked(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Arrays of all that is bound, if that is exactly what an engine has."""
        cache = {f"past.{c.name}": c for c in self._manifest.cache}
        plan, whole = self._plan, np.int32 if self._plan.fixed_sizes else np.int64
        batch, n = self._inputs["input_ids"][1]
        m = self._inputs["logit_positions"][1][0] if "logit_positions" in self._inputs else 1
        shapes = {"input_ids": (batch, n), "positions": (batch, n), "starts": (batch,), "logit_positions": (m,)}
        if plan.fixed_sizes:
            del shapes["starts"]
            if n == 1:
                del shapes["logit_positions"]
                shapes["sequences"] = (batch,)
        shapes |= {name: (batch, c.heads, plan.capacity, c.dim) for name, c in cache.items()}
        assert self._inputs.keys() == shapes.keys(), sorted(self._inputs)
        made = {"logits", "best_tokens", "best_logits"} if plan.best_tokens else {"logits"}
        assert self._outputs.keys() == made | {f"present.{c.name}" for c in self._manifest.cache}, sorted(self._outputs)
        for what, size, (least, _, most) in (
            ("sequences", batch, self.profile.batch), ("tokens", n, self.profile.tokens), ("logits", m, self.profile.logits),
        ):  # fmt: skip
            assert least <= size <= most, f"{size} {what}, {self.profile.name} takes {least} to {most}"
        arrays = {}
        for name, (address, shape) in self._inputs.items():
            assert shape == shapes[name], f"{name} is {shape}, it must be {shapes[name]}"
            arrays[name] = self._device.view(address, shape, np.dtype(cache[name].dtype if name in cache else whole))
            if name in cache:
                assert self._outputs[f"present.{cache[name].name}"] == address, f"{name} is not updated in place"
        rows = (batch * m,) if plan.fixed_sizes else (batch, m)
        outputs = {
            name: self._device.view(
                self._outputs[name],
                (*rows, self._manifest.vocab_size) if name == "logits" else rows,
                np.dtype(whole if name == "best_tokens" else np.float32),
            )
            for name in made
        }
        return arrays, outputs
