"""The article's rule of thumb for GPU memory, beside what is computed, with the difference explained."""

from __future__ import annotations

from dataclasses import dataclass

from .hardware import GB
from .memory import Plan

PER_BILLION, PER_TOKEN = 2.2, 0.0005  # GB for a billion parameters; GB for a token of a sequence


@dataclass(frozen=True)
class Rule:
    """Gigabytes by the rule and as computed, and why they differ."""

    rule: float
    weights: float  # of the rule's
    kv: float
    computed_weights: float
    computed_kv: float
    computed: float
    why: tuple[str, ...]


def compare(plan: Plan, sequences: int, length: int) -> Rule:
    """parameters (billions) x 2.2 + batch x length x 0.0005, and the same of the plan, in GB of all GPUs together."""
    geometry, tensor = plan.geometry, plan.split.tensor
    billions = geometry.parameters / 1e9
    weights, kv = billions * PER_BILLION, sequences * length * PER_TOKEN
    own_weights, own_kv = plan.weights / GB, sequences * plan.kv_bytes(length) / GB
    others = sum(rank.activations + rank.runtime for rank in plan.ranks) * tensor * plan.split.data / GB
    token = plan.kv_bytes(plan.geometry.longest or length) / (plan.geometry.longest or length)
    why = [
        f"2.2 GB for a billion parameters is 16 bits and a tenth; {plan.precision} takes {own_weights / billions:.2f} here, "
        "copies of what is not split included",
        f"0.0005 GB is 500,000 bytes a token whatever the model; this one takes {token:,.0f} in {plan.kv_dtype}"
        + (f", its latent copied to {tensor} tensor ranks" if geometry.latent and tensor > 1 else "")
        + (f", its {geometry.kv_heads} key-value heads copied to {tensor} ranks"
           if not geometry.latent and tensor > geometry.kv_heads else ""),
        f"the rule has no term for activations and libraries: {others:.1f} GB here",
    ]  # fmt: skip
    return Rule(weights + kv, weights, kv, own_weights, own_kv, own_weights + own_kv + others, tuple(why))
