"""The command line's options that TensorRT engines alone have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..target import Flag

if TYPE_CHECKING:
    from ...plan import BuildPlan

CAPABILITY = Flag(
    name="compute_capability",
    kind=list[str],
    help="GPU of a TensorRT engine, e.g. 8.9; repeatable. By default all from 8.0 on.",
)
STREAMING = Flag(
    name="weight_streaming",
    kind=bool,
    help="TensorRT: weights may stay in host memory where the GPU's is too small.",
)
FLAGS = (CAPABILITY, STREAMING)


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions:
    """Their values."""

    compute_capabilities: tuple[str, ...] = ()  # of the GPUs the engine is for, e.g. 8.9; empty: all from 8.0 on
    weight_streaming: bool = False

    @classmethod
    def of(cls, plan: BuildPlan) -> TensorRtOptions:
        return cls(
            compute_capabilities=tuple(plan.options.get(CAPABILITY.name, ())),
            weight_streaming=bool(plan.options.get(STREAMING.name, False)),
        )
