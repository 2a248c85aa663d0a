"""How long a step takes: what must be read, multiplied and sent, over what the hardware can, times measured shares of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .calibration import (
    BANDWIDTH_SHARE,
    ELEMENTWISE_PASSES,
    FUSED_ROWS,
    LINK_SHARE,
    MATRIX_SHARE,
    NETWORK_LATENCY,
    NVLINK_LATENCY,
    PCIE_LATENCY,
    Engine,
)
from .formats import block_bytes, matrix_type
from .memory import Plan, Rank
from .splits import machines, spans


@dataclass(frozen=True)
class Parts:
    """Seconds of a step of one rank, by what bounds them."""

    weights: float  # reading them, or multiplying with them: the longer of the two; and widening them
    attention: float  # reading KV or multiplying with it, and the same of prompts
    elementwise: float
    collectives: float
    overhead: float
    bound: str  # of `weights`: "bandwidth" or "matrix rate"

    @property
    def seconds(self) -> float:
        return self.weights + self.attention + self.elementwise + self.collectives + self.overhead


def touched(experts: int, active: int, tokens: float) -> float:
    """How many distinct experts of a layer a batch needs, if each token chooses evenly and alone."""
    return float(experts * (1 - (1 - active / experts) ** tokens))


def imbalance(tokens: float, active: int, ranks: int) -> float:
    """Work of the fullest of the ranks that share experts over the mean: the largest of so many Poisson numbers."""
    mean = tokens * active / ranks
    return 1.0 if ranks == 1 or mean <= 0 else min(1 + math.sqrt(2 * math.log(ranks) / mean), float(ranks))


class Roofline:
    """Times of a plan's steps.

    Args:
        plan: what runs where.
        engine: what takes its share besides.
        per_machine: GPUs that a machine has; links between them are the GPU's own.
        network: bytes/s each way of one GPU to other machines.
    """

    def __init__(self, plan: Plan, engine: Engine, *, per_machine: int = 8, network: float = 50e9) -> None:
        self.plan, self.engine, self.per_machine, self.network = plan, engine, per_machine, network
        gpu = plan.gpu
        self._bandwidth = gpu.bandwidth * 1e9 * BANDWIDTH_SHARE
        self._kv_bandwidth = gpu.bandwidth * 1e9 * (engine.kv8 if plan.kv_dtype == "fp8" else BANDWIDTH_SHARE)
        self._rate = gpu.rate(matrix_type(plan.precision)) * MATRIX_SHARE
        self._attention_rate = gpu.rate("bf16") * MATRIX_SHARE
        self._latency = PCIE_LATENCY if gpu.link_name.startswith("PCIe") else NVLINK_LATENCY
        self._ranks = [_RankWork.of(rank) for rank in plan.ranks]

    def decode(self, batch: float, context: float, busy: int | None = None) -> float:
        """Seconds between two tokens of `batch` sequences of one replica, each with `context` tokens behind it.

        Args:
            busy: data-parallel replicas that have as many; None: all.
        """
        return self.step(batch, batch * context, busy=busy)

    def prefill(self, tokens: int, cached: int = 0) -> float:
        """Seconds of a prompt, in steps of the largest size; `cached` tokens of it are there already."""
        seconds, start = 0.0, cached
        while start < tokens:
            length = min(self.plan.step_tokens, tokens - start)
            seconds += self.step(0, 0, length, length * (start + length / 2))
            start += length
        return seconds

    def step(
        self, batch: float, context: float, prompt: float = 0, pairs: float = 0, busy: int | None = None
    ) -> float:  # fmt: skip
        """Seconds of a step of one replica.

        Args:
            batch: sequences that get one more token.
            context: tokens that they attend to, all together.
            prompt: tokens of prompts besides.
            pairs: of these, queries times the keys that each sees.
            busy: as `decode`.
        """
        pipeline = self.plan.split.pipeline
        lots = max(1.0, min(pipeline, batch or 1))  # micro-batches, so that every stage has one
        lot = (batch / lots, context / lots, prompt / lots, pairs / lots, busy)
        each = [self.parts(stage, *lot).seconds for stage in range(pipeline)]
        # Every stage works on its micro-batch while the others have theirs; fewer than stages leave some idle.
        return sum(each) + (lots - 1) * max(each) + pipeline * self._hop((batch + prompt) / lots)

    def parts(
        self, stage: int, batch: float, context: float, prompt: float = 0, pairs: float = 0, busy: int | None = None
    ) -> Parts:  # fmt: skip
        """What a rank of `stage` does in a step of one micro-batch; arguments as `step`."""
        plan, work, tokens = self.plan, self._ranks[stage], batch + prompt
        geometry, split = plan.geometry, plan.split
        everyone = tokens * ((busy or split.data) if split.expert else 1)  # whose experts this rank may have
        share = touched(geometry.experts, geometry.active, everyone) / geometry.experts if geometry.experts else 0.0
        read, widening = (work.dense_bytes + work.expert_bytes * share + work.head_bytes) / self._bandwidth, 0.0
        if plan.precision == "int4" and tokens <= FUSED_ROWS:
            read *= BANDWIDTH_SHARE / self.engine.codes
        elif plan.precision == "int4" and self.engine.widens:
            wide = 2 * (work.dense_size + work.expert_numbers * share + work.head_size) / self._bandwidth
            widening, read = read + wide, wide
        uneven = imbalance(everyone, geometry.active, split.expert_ranks) if geometry.experts else 1.0
        flops = 2 * (tokens * (work.dense_size + work.expert_size * uneven) + batch * work.head_size)
        multiply = flops / self._rate
        heads = split.tensor
        rows = max(context * work.kv_bytes / self._kv_bandwidth,
                   context * work.layers * geometry.pair_flops[1] / heads / self._attention_rate)  # fmt: skip
        prompts = pairs * work.layers * geometry.pair_flops[0] / heads / self._attention_rate
        numbers = geometry.hidden + geometry.inner / split.tensor
        return Parts(
            weights=widening + max(read, multiply),
            attention=rows + prompts,
            elementwise=tokens * work.layers * numbers * 2 * ELEMENTWISE_PASSES / self._bandwidth,
            collectives=self._collectives(work, tokens),
            overhead=self.engine.overhead(work.layers, batch),
            bound="matrix rate" if multiply > read else "bandwidth",
        )

    def volume(self, tokens: float) -> tuple[float, float]:
        """Bytes that a rank of the first stage sends in a step of so many tokens: in all-reduces, and to experts elsewhere."""
        geometry, split, work = self.plan.geometry, self.plan.split, self._ranks[0]
        tensor, ranks = split.tensor, split.expert_ranks
        stream = tokens * geometry.hidden * 2
        sums = 2 * work.layers * 2 * (tensor - 1) / tensor * stream
        if not split.expert or split.data == 1:
            return sums, 0.0  # tensor ranks have the same tokens: sums are enough
        # Each token goes to its experts in the type of products and comes back in 16 bits.
        there = 1 if matrix_type(self.plan.precision) == "fp8" else 2
        sent = tokens / tensor * geometry.active * geometry.hidden * (there + 2) * (ranks - 1) / ranks
        return sums, work.mixtures * sent

    def _collectives(self, work: _RankWork, tokens: float) -> float:
        split = self.plan.split
        sums, exchange = self.volume(tokens)
        scale = work.layers / max(self._ranks[0].layers, 1)
        gpu, network = self.plan.gpu, self.network * LINK_SHARE
        seconds = 0.0
        if split.tensor > 1:
            apart = spans(split, machines(split.gpus, self.per_machine))
            link = network if apart else gpu.link_among(split.tensor) * LINK_SHARE
            seconds += 2 * work.layers * (NETWORK_LATENCY if apart else self._latency) + scale * sums / link
        if exchange:
            far = split.expert_ranks > self.per_machine
            outside = 1 - self.per_machine / split.expert_ranks if far else 0.0
            latency = self._latency + (NETWORK_LATENCY if far else 0)
            link = gpu.link_among(min(split.expert_ranks, self.per_machine)) * LINK_SHARE
            seconds += 2 * work.mixtures * latency + scale * exchange * max(outside / network, (1 - outside) / link)
        return seconds

    def _hop(self, tokens: float) -> float:
        """Seconds from one pipeline stage to the next."""
        split = self.plan.split
        if split.pipeline == 1:
            return 0.0
        far = split.gpus > self.per_machine
        rate = self.network if far else self.plan.gpu.link_among(2)
        return (NETWORK_LATENCY if far else self._latency) + tokens * self.plan.geometry.hidden * 2 / rate / LINK_SHARE


@dataclass(frozen=True, kw_only=True)
class _RankWork:
    """What a rank reads and multiplies with for a token."""

    layers: int
    mixtures: int  # of the layers, those with experts
    dense_bytes: int  # all but table, head and experts
    dense_size: int
    expert_bytes: int  # of all experts that it has
    expert_numbers: int
    expert_size: float  # numbers that one token multiplies with, in the mean over ranks
    head_bytes: int
    head_size: int
    kv_bytes: int  # of a token

    @classmethod
    def of(cls, rank: Rank) -> _RankWork:
        geometry, split = rank.plan.geometry, rank.plan.split
        sizes = {"table": 0, "head": 0, "expert": 0, "dense": 0}
        octets = dict(sizes)
        for block, shape, count in rank.blocks:
            kind = block.kind if block.kind in ("table", "head") else "expert" if block.split == "expert" else "dense"
            sizes[kind] += count * math.prod(shape)
            octets[kind] += count * block_bytes(block, rank.plan.precision, shape)
        head = "table" if geometry.tied else "head"
        mixtures = sum(any(block.split == "expert" for block in geometry.layers[n]) for n in rank.layers)
        # A rank with whole experts serves the tokens of all data-parallel replicas that share them.
        chosen = sizes["expert"] * geometry.active / geometry.experts if geometry.experts else 0.0
        return cls(
            layers=len(rank.layers),
            mixtures=mixtures,
            dense_bytes=octets["dense"],
            dense_size=sizes["dense"],
            expert_bytes=octets["expert"],
            expert_numbers=sizes["expert"],
            expert_size=chosen * (split.data if split.expert else 1),
            head_bytes=octets[head] if rank.last else 0,
            head_size=sizes[head] if rank.last else 0,
            kv_bytes=rank.kv_per_token,
        )
