"""How far an engine may be from its checkpoint, per precision. Decides nothing but pass or fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one precision; None: measured and reported, not limited."""

    logits_error: float | None = None  # largest |engine - reference| of a position over the largest |reference|
    mean_kl: float | None = None  # nats, mean over positions, of decoding and of prefill alike
    greedy_agreement: float  # share of the engine's greedy tokens that the reference would have chosen too
    tie: float = 1e-4  # a reference's lead below this share of its largest logit is a tie: both tokens are right
    perplexity_ratio: float  # engine's over reference's
    chunk_error: float | None = None  # relative difference between two ways of cutting one prompt
    batch_error: float | None = 0.0  # relative difference of a sequence alone and among others; 0: the same bits


_EXACT = Budget(logits_error=1e-3, mean_kl=1e-5, greedy_agreement=1.0, perplexity_ratio=1.001, chunk_error=1e-3)
_HALVES = Budget(mean_kl=0.01, greedy_agreement=0.97, perplexity_ratio=1.01)  # exact where the checkpoint has that form

# Of TensorRT's networks, computed in NumPy with every value rounded as declared: the order of sums is the only freedom.
_NETWORK = Budget(
    logits_error=0.03, mean_kl=1e-3, greedy_agreement=0.97, tie=0.01, perplexity_ratio=1.01, chunk_error=0.03, batch_error=0.03
)
_ROUGH = dataclasses.replace(_NETWORK, logits_error=None, tie=0.02, chunk_error=0.2, batch_error=0.2)

BUDGETS: Mapping[str, Budget] = {
    "fp32": _EXACT,
    "bf16": _HALVES,
    "fp16": _HALVES,
    "fp8": _EXACT,
    "int8": Budget(mean_kl=0.03, greedy_agreement=0.93, perplexity_ratio=1.03),
    "w8a8": Budget(mean_kl=0.08, greedy_agreement=0.88, perplexity_ratio=1.03),
    "int4": Budget(mean_kl=0.08, greedy_agreement=0.88, perplexity_ratio=1.03),
    "tensorrt/fp16": _NETWORK,
    "tensorrt/bf16": dataclasses.replace(_ROUGH, mean_kl=0.01, greedy_agreement=0.93, perplexity_ratio=1.02),
    "tensorrt/int8": dataclasses.replace(_ROUGH, mean_kl=0.01, greedy_agreement=0.93, perplexity_ratio=1.02),
    "tensorrt/fp8": dataclasses.replace(_ROUGH, mean_kl=0.05, greedy_agreement=0.88, perplexity_ratio=1.08),
    "tensorrt/int4": dataclasses.replace(_ROUGH, mean_kl=0.1, greedy_agreement=0.85, perplexity_ratio=1.05),
}


def find_budget(budgets: Mapping[str, Budget], target: str, precision: str) -> Budget:
    """The budget of that target and precision; a target without its own has the precision's."""
    return budgets.get(f"{target}/{precision}") or budgets[precision]
