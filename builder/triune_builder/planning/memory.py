"""What each GPU holds: weights, activations, what libraries take, and the KV cache in what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from triune_runtime.manifest import CacheTensor

from .formats import KV_BYTES, block_bytes
from .geometry import Block, Geometry
from .hardware import GIB, Gpu
from .splits import Split, rank_shape, stages

# What an engine of ours takes beside weights, caches and the largest step: CUDA's context, libraries, recorded graphs. Of the
# 9,688.8 MiB of "Ten minutes at the memory limit" (docs/cuda-log.md) it is what the terms below leave.
RUNTIME = 750 << 20
COLLECTIVES = 1 << 30  # NCCL's buffers and all-reduce workspaces of a rank among several: assumed, not measured here
KV_SHARE = 0.9  # of what is free after the largest step, for KV blocks (docs/cuda-runner.md, "Memory")
STEP_TOKENS = 8192  # the largest step that is planned for
KV_BLOCK = 128  # tokens; docs/cuda.md


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One model on GPUs of one kind."""

    geometry: Geometry
    gpu: Gpu
    split: Split
    precision: str
    kv_dtype: str
    mtp: bool = False  # layers that predict further tokens are loaded
    sequences: int = 256  # that run at once in one data-parallel replica, at most
    step_tokens: int = STEP_TOKENS

    @cached_property
    def ranks(self) -> tuple[Rank, ...]:
        """One rank of each pipeline stage; the others of a stage hold as much."""
        cut = stages(len(self.geometry.layers), self.split.pipeline)
        return tuple(Rank(self, number, layers) for number, layers in enumerate(cut))

    @cached_property
    def fullest(self) -> Rank:
        """The rank that has the least room for KV, by the tokens that it can hold."""
        return min(self.ranks, key=lambda rank: (rank.tokens, -rank.fixed))

    @property
    def fits(self) -> bool:
        return all(rank.room > 0 for rank in self.ranks)

    def kv_bytes(self, length: int) -> int:
        """Of one sequence of that many tokens, on all ranks of one replica together."""
        return sum(rank.kv_bytes(length) for rank in self.ranks) * self.split.tensor

    def held(self, length: int) -> int:
        """Sequences of that many tokens that fit, on all GPUs together, as far as memory goes."""
        return min(rank.held(length) for rank in self.ranks) * self.split.data

    @property
    def weights(self) -> int:
        """Bytes of weights of all GPUs together, copies included."""
        return sum(rank.weights for rank in self.ranks) * self.split.tensor * self.split.data


class Rank:
    """What one GPU of one pipeline stage holds; bytes."""

    def __init__(self, plan: Plan, stage: int, layers: range) -> None:
        self.plan, self.stage, self.layers = plan, stage, layers
        self.first, self.last = stage == 0, stage == plan.split.pipeline - 1

    @cached_property
    def blocks(self) -> list[tuple[Block, tuple[int, ...], int]]:
        """Each block of weights, the shape of its part, and how many of them."""
        geometry, split = self.plan.geometry, self.plan.split
        found = [block for number in self.layers for block in geometry.layers[number]]
        if self.first or (self.last and geometry.tied):
            found.append(geometry.table)
        if self.last:
            found += [*geometry.last, *([geometry.head] if geometry.head else [])]
            found += [block for layer in geometry.predictors for block in layer] if self.plan.mtp else []
        return [(block, *rank_shape(block, geometry, split)) for block in found]

    def bytes_of(self, *splits: str) -> int:
        """Of weights that are split in one of those ways; of none named: all."""
        return sum(
            count * block_bytes(block, self.plan.precision, shape)
            for block, shape, count in self.blocks
            if not splits or block.split in splits
        )

    @cached_property
    def weights(self) -> int:
        return self.bytes_of()

    @cached_property
    def experts(self) -> int:
        """Of `weights`, those of routed experts."""
        return self.bytes_of("expert")

    @cached_property
    def activations(self) -> int:
        """What the largest step needs for a moment: four times the width, queries, keys and values, three times the inner
        width, what chosen experts take in; and logits of a row for each sequence, in 32 and in 16 bits."""
        plan, geometry = self.plan, self.plan.geometry
        keys = sum(math.ceil(c.heads / plan.split.tensor) * c.dim for c in self.caches) // len(self.layers)
        attention = geometry.queries // plan.split.tensor + keys
        chosen = geometry.active * geometry.hidden if geometry.experts else 0
        inner = math.ceil(geometry.inner / plan.split.tensor)
        step = plan.step_tokens * 2 * (4 * geometry.hidden + attention + 3 * inner + chosen)
        logits = plan.sequences * math.ceil(geometry.vocab / plan.split.tensor) * 6 if self.last else 0
        return step + logits

    @property
    def runtime(self) -> int:
        """Context, libraries, recordings; buffers of collectives where there is more than one rank."""
        return RUNTIME + (COLLECTIVES if self.plan.split.gpus > 1 else 0)

    @property
    def fixed(self) -> int:
        """All but KV."""
        return self.weights + self.activations + self.runtime

    @property
    def room(self) -> int:
        """For KV blocks; below 0: so much is missing."""
        free = self.plan.gpu.bytes - self.fixed
        return round(free * KV_SHARE) if free > 0 else free

    @property
    def free(self) -> int:
        """What nobody gets of a GPU that the plan fits."""
        return self.plan.gpu.bytes - self.fixed - self.room

    @property
    def caches(self) -> list[CacheTensor]:
        """The caches of its layers; those of layers that predict further tokens are like the last one."""
        caches, numbers = self.plan.geometry.cache, set(self.layers)
        found = [c for c in caches if int(c.name.partition(".")[0]) in numbers]
        if self.last and self.plan.mtp:
            found += [c for c in caches if c.name.partition(".")[0] == str(len(self.plan.geometry.layers) - 1)] * len(
                self.plan.geometry.predictors
            )
        return found

    @cached_property
    def _kv(self) -> dict[int | None, int]:
        """Window -> bytes of a token; a latent is whole on each tensor rank, a head that is shared by ranks on each of them."""
        found: dict[int | None, int] = {}
        for cache in self.caches:
            heads = max(1, cache.heads // self.plan.split.tensor)
            found[cache.window] = found.get(cache.window, 0) + heads * cache.dim * KV_BYTES[self.plan.kv_dtype]
        return found

    @property
    def kv_per_token(self) -> int:
        """While no window is full."""
        return sum(self._kv.values())

    def kv_bytes(self, length: int) -> int:
        """Of one sequence of that many tokens."""
        return sum(_positions(length, window) * each for window, each in self._kv.items())

    @property
    def tokens(self) -> int:
        """That the KV cache has room for, where no layer has a window."""
        return max(self.room, 0) // self.kv_per_token if self.kv_per_token else 1 << 62

    def held(self, length: int) -> int:
        """Sequences of that many tokens that it has room for."""
        each = self.kv_bytes(length)
        return max(self.room, 0) // each if each else 1 << 62


def _positions(length: int, window: int | None) -> int:
    seen = length if window is None else min(window, length)
    return math.ceil(seen / KV_BLOCK) * KV_BLOCK


def gib(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:,.1f} GiB" if abs(count) >= GIB else f"{count / (1 << 20):,.0f} MiB"
