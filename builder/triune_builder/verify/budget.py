"""How far an engine may be from its checkpoint. Decides nothing but pass or fail; each target's precisions have their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one precision of a target; None: measured and reported, not limited."""

    logits_error: float | None = None  # largest |engine - reference| of a position over the largest |reference|
    mean_kl: float | None = None  # nats, mean over positions, of decoding and of prefill alike
    greedy_agreement: float  # share of the engine's greedy tokens that the reference would have chosen too
    tie: float = 1e-4  # a reference's lead below this share of its largest logit is a tie: both tokens are right
    perplexity_ratio: float  # engine's over reference's, of all texts
    kind_ratio: float | None = None  # of each kind of text, beyond what chance may explain with so few tokens
    chunk_error: float | None = None  # relative difference between two ways of cutting one prompt
    batch_error: float | None = 0.0  # relative difference of a sequence alone and among others; 0: the same bits
