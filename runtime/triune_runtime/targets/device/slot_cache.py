"""The KV cache of a slot runner in a device's memory: where each slot lies, and copies between slots. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...manifest import CacheTensor
from .device import ALIGNMENT, Device


class SlotCache:
    """One allocation [slots, heads, capacity, dim] for each tensor of the cache, zeros at first.

    What lies behind a sequence's last token is masked, not skipped: it may be stale, but never a NaN.
    """

    def __init__(self, device: Device, tensors: Sequence[CacheTensor], *, slots: int, capacity: int) -> None:
        self._device, self._tensors, self._capacity = device, tuple(tensors), capacity
        for tensor in tensors:
            slot_bytes = tensor.bytes_per_position * capacity
            assert slot_bytes % ALIGNMENT == 0, f"a slot of {tensor.name} takes {slot_bytes} bytes, no multiple of {ALIGNMENT}"
        self._bases = [device.allocate(slots * t.bytes_per_position * capacity) for t in tensors]
        self.bytes = sum(slots * t.bytes_per_position * capacity for t in tensors)

    def bindings(self, first: int, count: int) -> Iterator[tuple[CacheTensor, int, tuple[int, ...]]]:
        """(tensor, address, shape) of slots `first` to `first + count - 1`."""
        for tensor, base in zip(self._tensors, self._bases, strict=True):
            address = base + first * tensor.bytes_per_position * self._capacity
            yield tensor, address, (count, tensor.heads, self._capacity, tensor.dim)

    def copy(self, source: int, target: int, length: int) -> None:
        """Queue a copy of the first `length` positions of slot `source` to slot `target`."""
        for tensor, base in zip(self._tensors, self._bases, strict=True):
            slot_bytes = tensor.bytes_per_position * self._capacity
            head = tensor.bytes_per_position // tensor.heads  # bytes of one head's position
            self._device.copy_rows(
                base + target * slot_bytes,
                base + source * slot_bytes,
                rows=tensor.heads,
                width=length * head,
                pitch=self._capacity * head,
            )
