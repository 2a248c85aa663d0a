"""What was found of each precision: figures, and the same as JSON. Measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..verify.report import BuildReport, finite
from ..verify.verification import TextLoss, Verification

PREFILL = "prefill"


@dataclass(frozen=True)
class Spread:
    """A figure that was measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    @property
    def share(self) -> float:
        """How far it spreads, of its median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one process that ran the engine alone told."""

    tokens_per_s: dict[str, float]  # by "prefill", and the number of sequences that decode
    memory_bytes: int  # proportional set size when all was measured
    peak_bytes: int  # resident, at most


@dataclass(frozen=True, kw_only=True)
class Score:
    """Problems that have an answer."""

    asked: dict[str, int]  # by kind
    right: dict[str, int]

    @property
    def share(self) -> float:
        return sum(self.right.values()) / max(sum(self.asked.values()), 1)


@dataclass(kw_only=True)
class Row:
    """One precision. What is None was not measured; `failed` says why, if that is a failure."""

    name: str
    precision: str
    report: BuildReport | None = None
    texts: tuple[TextLoss, ...] = ()  # the user's
    disk_bytes: int = 0
    build_s: float = 0.0
    rounds: list[Round] | None = None
    score: Score | None = None
    failed: str = ""

    @property
    def found(self) -> Verification | None:
        return self.report.verification if self.report else None

    @property
    def loss(self) -> float | None:
        """Perplexity over that of the float weights, less one."""
        return self.found.perplexity_ratio - 1 if self.found else None

    @property
    def kinds(self) -> tuple[TextLoss, ...]:
        """All that was read, the user's texts included."""
        return (*(self.found.texts if self.found else ()), *self.texts)

    @property
    def worst(self) -> TextLoss | None:
        """The kind of text that loses most, of several."""
        return max(self.kinds, key=lambda text: text.ratio) if len(self.kinds) > 1 else None

    @property
    def mean_kl(self) -> float | None:
        """Of decoding, nats; where no token was run alone, of prefill."""
        return (self.found.decode or self.found.prefill).mean_kl if self.found else None

    @property
    def greedy(self) -> float | None:
        return self.found.agreement(self.report.budget.tie) if self.found and self.report else None

    @property
    def over(self) -> list[str]:
        """What is over the budget: `triune build` would not publish it."""
        return self.report.problems if self.report else []

    @property
    def speeds(self) -> dict[str, Spread]:
        """Tokens/s, by what `Round.tokens_per_s` has them by."""
        rounds = self.rounds or []
        return {
            name: Spread.of([one.tokens_per_s[name] for one in rounds]) for name in (rounds[0].tokens_per_s if rounds else ())
        }

    @property
    def spread(self) -> float | None:
        """Of all speeds the largest, as a share of the median."""
        return max(spread.share for spread in self.speeds.values()) if self.rounds and len(self.rounds) > 1 else None

    @property
    def memory(self) -> Spread | None:
        return Spread.of([one.memory_bytes for one in self.rounds]) if self.rounds else None

    @property
    def peak(self) -> Spread | None:
        return Spread.of([one.peak_bytes for one in self.rounds]) if self.rounds else None

    def to_json(self) -> dict[str, Any]:
        """All of it; shares, nats, tokens/s, bytes, seconds."""
        return {
            "name": self.name,
            "precision": self.precision,
            "failed": self.failed or None,
            "over_budget": self.over,
            "perplexity_loss": self.loss,
            "perplexity": self.found and self.found.perplexity_engine,
            "perplexity_float": self.found and self.found.perplexity_reference,
            "texts": {text.name: {"loss": text.ratio - 1, "tokens": text.tokens, "standard_error": text.standard_error}
                      for text in self.kinds},
            "worst_text": self.worst and self.worst.name,
            "mean_kl": self.mean_kl,
            "greedy_agreement": self.greedy,
            "left_out": (self.found.left_out if self.found else "") or None,
            "problems": self.score and asdict(self.score) | {"share": self.score.share},
            "tokens_per_s": {name: asdict(spread) for name, spread in self.speeds.items()},
            "spread": self.spread,
            "memory_bytes": self.memory and self.memory.median,
            "peak_bytes": self.peak and self.peak.median,
            "disk_bytes": self.disk_bytes or None,
            "build_s": round(self.build_s, 1) if self.report else None,
        }  # fmt: skip


@dataclass(kw_only=True)
class Comparison:
    """All precisions of one model."""

    model: str
    target: str
    twin: str  # the precision nearest to the float weights, which the others are set beside
    machine: str
    rounds: int
    rows: list[Row]

    @property
    def ranked(self) -> list[Row]:
        """What is nearest to the float weights comes first; what could not be measured, last.

        By the divergence: of few tokens a perplexity may be below that of the float weights by chance, which is no gain.
        """
        return sorted(self.rows, key=lambda row: (row.mean_kl is None, row.mean_kl or 0.0, row.disk_bytes))

    @property
    def base(self) -> Row | None:
        """What others are set beside, if it was measured."""
        return next((row for row in self.rows if row.name == self.twin and row.rounds), None)

    def to_json(self) -> dict[str, Any]:
        raw: dict[str, Any] = finite({
            "model": self.model, "target": self.target, "machine": self.machine, "rounds": self.rounds,
            "rows": [row.to_json() for row in self.ranked],
        })  # fmt: skip
        return raw
