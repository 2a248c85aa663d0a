"""What was measured of an engine, and whether it is within a budget. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .budget import Budget
from .drafts import DraftFigures

_SHOWN = 8  # disagreements that a report lists

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LogitsError:
    """How far the engine's logits are from the reference's over some positions."""

    positions: int
    maximum: float  # of max |engine - reference| / max |reference| at a position
    median: float
    mean_kl: float  # nats, of the engine's probabilities from the reference's
    maximum_kl: float


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A position at which the reference prefers another token than the engine chose."""

    prompt: int
    position: int
    engine: int
    reference: int
    margin: float  # the reference's logit of its own choice minus that of the engine's
    lead: float  # the same as a share of the reference's largest logit


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All that was measured of an engine."""

    decode: LogitsError | None  # None here and below: not measured, see `left_out`
    prefill: LogitsError
    prompts: int
    greedy_tokens: int
    disagreements: tuple[Disagreement, ...]
    text_tokens: int
    perplexity_reference: float
    perplexity_engine: float
    batch_error: float | None  # 0.0: a sequence's bits are the same whatever runs beside it
    repeat_error: float | None  # 0.0: a prompt cut the same way gives the same bits
    chunk_error: float | None  # between two ways of cutting a prompt
    engine_seconds: float
    reference_seconds: float
    left_out: str = ""  # what was not run, in words; empty: nothing
    drafts: DraftFigures | None = None  # None: the engine checks none
    best_errors: int | None = None  # rows whose best token, found by the engine, their logits contradict; None: it finds none

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity_engine / self.perplexity_reference

    def agreement(self, tie: float = 0.0) -> float:
        """Share of the greedy tokens that are the reference's own, or as good to within `tie`."""
        wrong = sum(not d.lead <= tie for d in self.disagreements)
        return 1 - wrong / max(self.greedy_tokens, 1)


def problems(found: Verification, budget: Budget) -> list[str]:
    """What is over the budget, one sentence each; a figure that is not a number is over every budget."""
    decode = found.decode
    limits: list[tuple[str, float | None, float | None]] = [
        ("relative logits error when decoding", decode.maximum if decode else None, budget.logits_error),
        ("relative logits error of prefill", found.prefill.maximum, budget.logits_error),
        ("mean KL divergence when decoding", decode.mean_kl if decode else None, budget.mean_kl),
        ("mean KL divergence of prefill", found.prefill.mean_kl, budget.mean_kl),
        ("perplexity over the reference's", found.perplexity_ratio, budget.perplexity_ratio),
        ("difference of a sequence alone and in a batch", found.batch_error, budget.batch_error),
        ("difference of a prompt read alone and among other work", found.repeat_error, budget.batch_error),
        ("difference between two ways of cutting a prompt", found.chunk_error, budget.chunk_error),
    ]
    if (drafts := found.drafts) is not None:
        limits += [
            ("difference of a token alone and checked as a draft", drafts.error, budget.batch_error),
            ("relative logits error of the MTP layer", drafts.mtp_error, budget.logits_error),
            ("mean KL divergence of the MTP layer", drafts.mtp_kl, budget.mean_kl),
        ]
    over = [f"{what} is {value:.4g}, allowed {limit:g}" for what, value, limit in limits
            if limit is not None and value is not None and not value <= limit]  # fmt: skip
    if found.best_errors:
        over.append(f"{found.best_errors} rows have another best token than the engine finds")
    agreement = found.agreement(budget.tie)
    if not agreement >= budget.greedy_agreement:
        over.append(f"greedy agreement is {agreement:.2%}, wanted {budget.greedy_agreement:.2%}")
    return over


def shown(disagreements: Sequence[Disagreement]) -> list[Disagreement]:
    """The worst few, for a report."""
    return sorted(disagreements, key=lambda d: -d.lead)[:_SHOWN]
