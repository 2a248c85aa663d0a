"""How a model is split over GPUs: which are possible, which layers a stage has, which part of a weight a rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import BuildError, option
from .geometry import Block, Geometry

_VOCAB_STEP = 64  # rows of the table are padded to a multiple of it before they are split, as vLLM does


@dataclass(frozen=True, kw_only=True)
class Split:
    """Degrees of parallelism. `expert`: the experts of a layer are handed out whole, over tensor x data ranks."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def degrees(self) -> tuple[int, int, int]:
        return self.tensor, self.pipeline, self.data

    @property
    def expert_ranks(self) -> int:
        """Ranks that share the experts of a layer."""
        return self.tensor * self.data if self.expert else 1

    def __str__(self) -> str:
        degrees = (("tensor", self.tensor), ("pipeline", self.pipeline), ("data", self.data))
        parts = [f"{name} {n}" for name, n in degrees if n > 1]
        return ", ".join(parts + (["experts whole"] if self.expert else [])) or "one GPU"


def stages(layers: int, count: int) -> list[range]:
    """Which layers each pipeline stage has: as even as can be. What is left over goes to the last stages but the very last,
    which has the head besides; this is how vLLM cuts."""
    sizes = [layers // count] * count
    for i in range(layers % count):
        sizes[-(i + 2) % count] += 1
    found, start = [], 0
    for size in sizes:
        found.append(range(start, start + size))
        start += size
    return found


@dataclass(frozen=True)
class Misfit:
    """Why a model cannot be split in some way, and what to do instead."""

    why: str
    remedy: str


def machines(gpus: int, per_machine: int) -> int:
    """How many have that many GPUs together."""
    return math.ceil(gpus / per_machine)


def misfit(geometry: Geometry, split: Split, nodes: int = 1) -> Misfit | None:
    """Why a model cannot be split that way over so many machines; None: it can. For plans and builds alike."""
    layers = len(geometry.layers)
    inner = {block.shape[block.axis] for layer in geometry.layers for block in layer
             if block.split == "inner" or (block.split == "expert" and not split.expert)}  # fmt: skip
    if why := _uneven(geometry, sorted(inner), split.tensor):
        most = next(n for n in range(split.tensor, 0, -1) if not _uneven(geometry, sorted(inner), n))
        return Misfit(f"--tensor-parallel is {split.tensor}, which {why}", f"choose e.g. {option('tensor_parallel', most)}")
    if split.pipeline > layers:
        return Misfit(
            f"--pipeline-parallel is {split.pipeline}, and the model has {layers} layers",
            f"choose {option('pipeline_parallel', layers)} or less",
        )
    if split.expert and not geometry.experts:
        return Misfit("--expert-parallel is given, and the model has no experts", "leave it out")
    if split.expert and split.expert_ranks > geometry.experts:
        return Misfit(
            f"--expert-parallel shares {geometry.experts} experts out to {split.expert_ranks} devices, which are more",
            "leave it out, or choose fewer devices",
        )
    return _apart(split, nodes)


def _uneven(geometry: Geometry, inner: Sequence[int], tensor: int) -> str:
    """What so many devices do not share evenly; empty: they share all."""
    shared = [("attention heads", geometry.heads), *(("numbers of a feed-forward layer", width) for width in inner)]
    for what, size in shared:
        if size % tensor:
            return f"does not divide the model's {size:,} {what}"
    heads = geometry.kv_heads
    if not geometry.latent and heads % tensor and tensor % heads:
        return f"neither divides the model's {heads} key and value heads nor is a multiple"
    return ""


def _apart(split: Split, nodes: int) -> Misfit | None:
    """The same of several machines, whatever the model."""
    if nodes > 1 and split.data > 1:
        return Misfit(
            f"--data-parallel is {split.data}, and copies of a model are not spread over machines, of which there are {nodes}",
            "serve each copy by itself, behind a balancer of your own",
        )
    if split.gpus % nodes:
        return Misfit(
            f"{split.gpus} devices (--tensor-parallel times --pipeline-parallel) are not shared evenly by {nodes} machines",
            f"choose e.g. {option('pipeline_parallel', nodes)}",
        )
    return None


def spans(split: Split, nodes: int) -> bool:
    """Whether devices that share a layer are in several machines: each layer waits for the network then."""
    return nodes > 1 and bool(split.gpus // nodes % split.tensor)


def splits(geometry: Geometry, gpus: int) -> Iterator[Split]:
    """Every way to use that many GPUs."""
    for tensor in _divisors(gpus):
        for pipeline in _divisors(gpus // tensor):
            data = gpus // tensor // pipeline
            for expert in (False, True) if geometry.experts and tensor * data > 1 else (False,):
                yield Split(tensor=tensor, pipeline=pipeline, data=data, expert=expert)


def check_split(geometry: Geometry, split: Split, gpus: int, nodes: int) -> None:
    """
    Raises:
        BuildError: the split is for another number of GPUs, or the model cannot be split that way over so many machines.
    """
    if split.gpus != gpus:
        raise BuildError(
            f"tensor {split.tensor} x pipeline {split.pipeline} x data {split.data} are {split.gpus} GPUs, not {gpus}",
            f"choose {option('gpus', split.gpus)}, or other degrees; left out, the planner chooses them",
        )
    if wrong := misfit(geometry, split, nodes):
        raise BuildError(wrong.why, wrong.remedy)


def rank_shape(block: Block, geometry: Geometry, split: Split) -> tuple[tuple[int, ...], int]:
    """The shape of what one rank has of a weight, the largest of all ranks, and how many such weights it has."""
    ranks, shape = split.tensor, list(block.shape)
    if block.split == "expert" and split.expert:
        return block.shape, math.ceil(block.count / split.expert_ranks)
    if block.split == "whole" or ranks == 1 or (block.split == "expert" and len(shape) < 2):
        return block.shape, block.count
    length = shape[block.axis]
    if block.split == "kv":
        ranks = min(ranks, geometry.kv_heads)  # a head is copied to the ranks that share it
    elif block.split == "vocab":
        length = math.ceil(length / _VOCAB_STEP) * _VOCAB_STEP
    shape[block.axis] = math.ceil(length / ranks)
    return tuple(shape), block.count


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
