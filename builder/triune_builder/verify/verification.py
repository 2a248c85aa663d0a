"""What was measured of an engine, and whether it is within a budget. Measures nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .budget import Budget
from .drafts import DraftFigures

_SHOWN = 8  # disagreements that a report lists
_ROUNDING = 1e-5  # of a loss; of a model that knows anything it is a hundredth of the tightest budget
_CHANCE = 2.0  # standard errors by which a loss may be over its budget
_MOST_CHANCE = 0.02  # nats: few tokens that are far off must not excuse themselves by how much they differ

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
class TextLoss:
    """What the true tokens of a text cost, in nats a token: the logarithm of its perplexity."""

    name: str
    tokens: int
    reference: float
    engine: float
    standard_error: float = 0.0  # of engine - reference: how far chance moves it with so few tokens

    @property
    def ratio(self) -> float:
        """The engine's perplexity over the reference's."""
        return _exp(self.engine - self.reference)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All that was measured of an engine."""

    decode: LogitsError | None  # None here and below: not measured, see `left_out`
    prefill: LogitsError
    prompts: int
    greedy_tokens: int
    disagreements: tuple[Disagreement, ...]
    texts: tuple[TextLoss, ...]  # in the order of their names
    batch_error: float | None  # of the worst row; 0.0: a sequence's bits are the same whatever runs beside it
    repeat_error: float | None  # 0.0: a prompt cut the same way gives the same bits
    chunk_error: float | None  # between two ways of cutting a prompt
    engine_seconds: float
    reference_seconds: float
    left_out: str = ""  # what was not run, in words; empty: nothing
    drafts: DraftFigures | None = None  # None: the engine checks none
    batch_median: float | None = None  # of the median row, of a model with experts: near a tie others may be chosen for a row
    best_errors: int | None = None  # rows whose best token, found by the engine, their logits contradict; None: it finds none

    @property
    def whole_text(self) -> TextLoss:
        """All texts as one."""
        tokens = sum(text.tokens for text in self.texts)
        reference, engine = (
            sum(text.tokens * loss for text, loss in zip(self.texts, losses, strict=True)) / max(tokens, 1)
            for losses in ([text.reference for text in self.texts], [text.engine for text in self.texts])
        )
        return TextLoss(name="all", tokens=tokens, reference=reference, engine=engine)

    @property
    def text_tokens(self) -> int:
        return self.whole_text.tokens

    @property
    def perplexity_reference(self) -> float:
        """Infinite where it is too large for a float, as that of random weights may be."""
        return _exp(self.whole_text.reference)

    @property
    def perplexity_engine(self) -> float:
        """As the reference's."""
        return _exp(self.whole_text.engine)

    @property
    def perplexity_ratio(self) -> float:
        """Of the two, finite also where neither is."""
        return self.whole_text.ratio

    def batch_judged(self, budget: Budget) -> float | None:
        """What `budget.batch_error` limits: the worst row, where the same bits are asked for or there are no experts."""
        return self.batch_median if budget.batch_error and self.batch_median is not None else self.batch_error

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
        ("perplexity over the reference's", _beyond_rounding(found.whole_text), budget.perplexity_ratio),
        ("difference of a sequence alone and in a batch", found.batch_judged(budget), budget.batch_error),
        ("difference of a prompt read alone and among other work", found.repeat_error, budget.batch_error),
        ("difference between two ways of cutting a prompt", found.chunk_error, budget.chunk_error),
    ]
    limits += [
        (f"perplexity of {text.name} texts over the reference's, beyond chance,", _beyond_chance(text), budget.kind_ratio)
        for text in found.texts if len(found.texts) > 1
    ]  # fmt: skip
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


def _beyond_rounding(text: TextLoss) -> float:
    """The ratio without what no two float32 computations agree in: a share of logits, much where they are thousands."""
    return _exp(text.engine - text.reference - _ROUNDING * abs(text.reference))


def _beyond_chance(text: TextLoss) -> float:
    """The ratio without what chance may explain: the least that a longer text of its kind would show.

    Some hundred tokens of a text are a small sample. How sums are rounded, which differs between processors, moves the ratio of
    one engine by 1% of its own accord; a build must not be refused on one machine and published on another for that.
    """
    return _beyond_rounding(text) / math.exp(min(_CHANCE * text.standard_error, _MOST_CHANCE))


def _exp(nats: float) -> float:
    """Infinite where it overflows."""
    return math.exp(nats) if not nats > 700 else math.inf


def shown(disagreements: Sequence[Disagreement]) -> list[Disagreement]:
    """The worst few, for a report."""
    return sorted(disagreements, key=lambda d: -d.lead)[:_SHOWN]
