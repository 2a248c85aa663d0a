"""The memory of KV blocks on the device, and how many there are. Who holds which is the store's affair."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence

from ...errors import TriuneError
from ...manifest import CacheTensor, EngineManifest
from ..device.device import SharedDevice, aligned
from .protocols import CacheGroup, Feeder

LOG = logging.getLogger(__name__)
SHARE = 0.9  # of the memory that is free once the largest step has run; the rest is for graphs and for what libraries keep
_TIMES = 4  # as many blocks as the sequences can fill at once: what is beyond only serves to find prompts again


def block_bytes(cache: Sequence[CacheTensor], block_tokens: int) -> int:
    """Bytes of one block of every cache tensor."""
    return sum(tensor.bytes_per_position for tensor in cache) * block_tokens


def blocks_that_fit(manifest: EngineManifest, block_tokens: int, free: int, total: int) -> int:
    """Blocks that sequences can have.

    Args:
        free: bytes of device memory that nobody holds.
        total: bytes of it in all.

    Raises:
        TriuneError: not even one sequence of the greatest length fits.
    """
    limits, size = manifest.limits, block_bytes(manifest.cache, block_tokens)
    longest = math.ceil(limits.max_length / block_tokens)
    fit = int(free * SHARE) // size - 1  # one is scratch
    blocks = min(fit, _TIMES * limits.max_sequences * longest)
    if blocks < longest:
        raise TriuneError(
            f"the GPU has {free / 1e9:.1f} of {total / 1e9:.1f} GB free beside the weights and a step, but the KV cache of one "
            f"sequence of {limits.max_length:,} tokens takes {longest * size / 1e9:.1f} GB",
            "free GPU memory (see nvidia-smi), or build with a smaller --max-length",
        )
    LOG.info(
        "KV memory: %d blocks of %d tokens, %.1f GB; %.1f of %.1f GB of GPU memory were free, of which up to %.0f%% is taken",
        blocks, block_tokens, (blocks + 1) * size / 1e9, free / 1e9, total / 1e9, 100 * SHARE,
    )  # fmt: skip
    return blocks


class BlockPool:
    """Blocks of all cache tensors, and one more: `scratch`, which belongs to nobody, and holds whatever comes."""

    def __init__(
        self, device: SharedDevice, feeder: Feeder, cache: Sequence[CacheTensor], block_tokens: int, blocks: int
    ) -> None:
        """
        Args:
            blocks: without scratch.
        """
        self._feeder, self.count, self.scratch = feeder, blocks + 1, blocks
        self.addresses: dict[str, int] = {}
        self._groups: list[CacheGroup] = []
        sizes = [tensor.bytes_per_position * block_tokens for tensor in cache]
        for size in dict.fromkeys(sizes):
            names = [tensor.name for tensor, own in zip(cache, sizes, strict=True) if own == size]
            pitch = aligned(size * self.count)
            base = device.allocate(pitch * len(names))
            self.addresses |= {name: base + number * pitch for number, name in enumerate(names)}
            self._groups.append(CacheGroup(base, pitch, len(names), size))

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Queue copies of blocks of every tensor, one after the other: (from, to)."""
        for part in independent(pairs):
            for group in self._groups:
                self._feeder.copy_blocks(group, part)


def independent(pairs: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Runs of copies, as long as may be, that give the same at once as one after the other.

    Args:
        pairs: (from, to), which are two.
    """
    part, sources, targets = list[tuple[int, int]](), set[int](), set[int]()
    for source, target in pairs:
        if source in targets or target in targets or target in sources:
            yield part
            part, sources, targets = [], set(), set()
        part.append((source, target))
        sources.add(source)
        targets.add(target)
    if part:
        yield part
