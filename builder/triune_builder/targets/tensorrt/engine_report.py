"""What a TensorRT engine is made of: layers, memory, profiles; JSON for programs, text for people."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triune_runtime.manifest import CacheTensor, Limits
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from .adapter import Network, as_class

JSON_NAME, TEXT_NAME = "plan.json", "plan.txt"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes."""

    plan: int
    weights: dict[str, int]  # datatype -> of the network's constants
    cache_slot: int
    cache: int  # all slots
    activations: int | None  # known only where a GPU loads the plan


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """The network as TensorRT parsed it, and the plan that it made."""

    plan: TensorRtPlan
    dtype: str
    state: str  # "loaded" on a GPU, or "whole": complete, and not loaded for want of one
    seconds: float  # parsing and building
    layers: dict[str, int]  # kind -> count, of the parsed network: the engine's own, fused, are known only on a GPU
    attention: dict[str, int]  # "fused, mask" -> count
    memory: Memory
    warnings: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write plan.json and plan.txt into `folder`."""
        (folder / JSON_NAME).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", "utf-8")
        (folder / TEXT_NAME).write_text(self.text(), "utf-8")

    def text(self) -> str:
        """The report for people."""
        plan, memory = self.plan, self.memory
        where = ", ".join(plan.compute_capabilities) or "any from 8.0 on"
        lines = [
            f"{plan.flavour} {plan.version} for compute capability {where}, arithmetic in {self.dtype}",
            f"plan {memory.plan / 1e6:,.1f} MB in {self.seconds:.1f} s, {self.state}, sha256 {plan.plan_sha256}",
            "",
            *(f"profile {p.name}: " + ", ".join(f"{what} {a} to {c}, best at {b}" for what, (a, b, c) in
              (("sequences", p.batch), ("tokens", p.tokens), ("logits", p.logits))) for p in plan.profiles),
            "",
            "weights  " + ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in memory.weights.items()),
            f"cache    {memory.cache_slot / 1e6:,.1f} MB a slot of {plan.capacity}, {memory.cache / 1e6:,.1f} MB in all",
            "activations  " + ("known only on a GPU" if memory.activations is None else f"{memory.activations / 1e6:,.1f} MB"),
            "attention    " + (", ".join(f"{count} {what}" for what, count in self.attention.items()) or "none fused"),
            "layers       " + ", ".join(f"{count} {kind}" for kind, count in self.layers.items()),
            *(f"warning: {text}" for text in self.warnings),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def describe(
    network: Network,
    plan: TensorRtPlan,
    cache: Sequence[CacheTensor],
    limits: Limits,
    *,
    dtype: str,
    state: str,
    warnings: Sequence[str],
    seconds: float,
) -> EngineReport:
    """The report of a plan that was just built."""
    trt, layers = network.rt.trt, network.layers()
    kinds = collections.Counter(layer.type.name for layer in layers)
    attention: collections.Counter[str] = collections.Counter()
    weights: collections.Counter[str] = collections.Counter()
    for layer in layers:
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            attention[_attention(as_class(trt, layer, "IAttentionInputLayer").attention)] += 1
        elif layer.type == trt.LayerType.CONSTANT:
            tensor = layer.get_output(0)
            weights[tensor.dtype.name] += _volume(tuple(tensor.shape)) * _BITS[tensor.dtype.name] // 8
    slot = sum(c.bytes_per_position * plan.capacity for c in cache)
    return EngineReport(
        plan=plan,
        dtype=dtype,
        state=state,
        seconds=round(seconds, 2),
        layers=dict(sorted(kinds.items())),
        attention=dict(attention),
        memory=Memory(
            plan=plan.plan_bytes,
            weights=dict(sorted(weights.items())),
            cache_slot=slot,
            cache=slot * limits.max_sequences,
            activations=None,
        ),
        warnings=tuple(warnings),
    )


_BITS = {"FLOAT": 32, "HALF": 16, "BF16": 16, "FP8": 8, "INT4": 4, "INT8": 8, "UINT8": 8, "INT32": 32, "INT64": 64, "BOOL": 8}


def _attention(attention: Any) -> str:
    how = "decomposable" if attention.decomposable else "fused"
    return f"{how}, {'mask' if attention.mask is not None else f'causal {attention.causal_kind.name}'}"


def _volume(shape: tuple[int, ...]) -> int:
    volume = 1
    for size in shape:
        volume *= size
    return volume
