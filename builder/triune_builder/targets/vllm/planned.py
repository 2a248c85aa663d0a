"""An engine as the planner decides it: its split, and the KV memory of each device. `triune plan` says the same of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BuildError, option
from ...planning.calibration import VLLM
from ...planning.choosing import Load
from ...planning.deciding import Wanted, decide
from ...planning.geometry import Geometry, geometry_of
from ...planning.hardware import GPUS, UNNAMED, find_gpu
from ...planning.memory import KV_BLOCK, STEP_TOKENS, Plan
from ...planning.splits import Split
from .asked import DEGREES
from .checking import served_config
from .precisions import PRECISIONS, find_precision

if TYPE_CHECKING:
    from ...plan import BuildPlan

_PROMPT = _OUTPUT = 1024  # tokens that a split is chosen for, as `triune plan` does where nobody says more
_SPARE_BLOCKS = 2  # of KV; one is never used


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was decided."""

    split: Split
    nodes: int
    kv_bytes: int  # on each device
    why: str


def served_geometry(config: Mapping[str, Any], stored: Collection[str] = ()) -> Geometry:
    """The model as vLLM keeps it: latents as wide as its kernels take them, and windows whole."""
    found = geometry_of(served_config(config), stored)
    return dataclasses.replace(found, cache=tuple(dataclasses.replace(one, window=None) for one in found.cache))


def options_of(split: Split, wanted: Wanted) -> dict[str, Any]:
    """The options of `triune build` that make an engine of that split."""
    known = GPUS.get(wanted.gpu.name) == wanted.gpu
    found = {
        "precision": find_precision(wanted.precision, wanted.kv_dtype),
        "gpu": wanted.gpu.name if known else None,
        **dict(zip(DEGREES, split.degrees, strict=True)),
        "expert_parallel": split.expert or None,
        "nodes": wanted.nodes if wanted.nodes > 1 else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def choose(plan: BuildPlan, config: Mapping[str, Any], stored: Collection[str]) -> Chosen:
    """The split and the KV memory of an engine: as much as all sequences at their longest need, as far as GPUs that are known
    have room for it.

    Args:
        stored: names of the checkpoint's weights.

    Raises:
        BuildError: the model cannot be split as asked for, or the GPUs that are known cannot hold it.
    """
    wanted = _wanted(plan, served_geometry(config, stored))
    decision = decide(wanted)
    best = decision.best.plan
    assert best is not None
    room = min(rank.room for rank in best.ranks)
    return Chosen(split=best.split, nodes=wanted.nodes, kv_bytes=min(_needed(plan, best), room), why=decision.why)


def _wanted(plan: BuildPlan, geometry: Geometry) -> Wanted:
    """What is to be decided: only of GPUs that are known is anything chosen, and what is left out is 1 elsewhere."""
    options, limits = plan.options, plan.limits
    tensor, pipeline, data = (options.get(name) for name in DEGREES)
    nodes, nothing = options.get("nodes", 1), not (tensor or pipeline or data)
    named = "gpu" in options
    if "gpus" in options and nothing and not named:
        raise BuildError(
            f"--gpus is {options['gpus']}, and it is not known which GPUs they are",
            f"name them, e.g. {option('gpu', 'h200')}, or say the split, e.g. {option('tensor_parallel', options['gpus'])}",
        )
    chosen = named and ("gpus" in options or nothing)
    if not chosen:
        tensor, pipeline, data = tensor or 1, pipeline or 1, data or 1
    prompt = min(_PROMPT, limits.max_length // 2)
    precision, kv_dtype = PRECISIONS[plan.precision].planned
    return Wanted(
        geometry=geometry,
        engine=VLLM,
        gpu=find_gpu(options["gpu"]) if named else UNNAMED,
        gpus=options.get("gpus") or (nodes if chosen else (tensor or 1) * (pipeline or 1) * (data or 1)),
        nodes=nodes,
        precision=precision,
        kv_dtype=kv_dtype,
        load=Load(
            sequences=limits.max_sequences, prompt=prompt, output=min(_OUTPUT, limits.max_length - prompt),
            longest=limits.max_length,
        ),
        degrees=(tensor, pipeline, data),
        expert=options.get("expert_parallel") or (None if chosen else False),
        step_tokens=max(STEP_TOKENS, limits.step_tokens),
    )  # fmt: skip


def _needed(plan: BuildPlan, best: Plan) -> int:
    """KV memory of each device, in which all sequences may be as long as they can be."""
    sequences = -(-plan.limits.max_sequences // best.split.data)
    blocks = sequences * -(-plan.limits.max_length // KV_BLOCK) + _SPARE_BLOCKS
    return blocks * KV_BLOCK * max(rank.kv_per_token for rank in best.ranks)
