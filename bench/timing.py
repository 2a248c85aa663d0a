"""What a stream's arrivals say: throughput, latencies, ratios. Pure: times in, figures out."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """One answer as its client saw it: when it was asked for, and (time, tokens) of every piece; seconds."""

    sent: float
    arrivals: tuple[tuple[float, int], ...]

    @property
    def tokens(self) -> int:
        return sum(count for _, count in self.arrivals)


@dataclass(frozen=True)
class Round:
    """Figures of one round of simultaneous streams; seconds."""

    tokens_per_s: float  # all streams together, prefill included
    first_token_s: float  # median over the streams
    first_token_p95_s: float
    between_tokens_s: float  # median over all tokens of all streams but the first pieces'
    between_tokens_p95_s: float


def summarize(streams: Sequence[Stream], tokens: int) -> Round:
    """The figures of one round in which every stream had to give `tokens` tokens.

    Raises:
        ValueError: there is no stream, or one gave another number of tokens: its figures could not be compared.
    """
    if not streams or any(s.tokens != tokens or not s.arrivals for s in streams):
        raise ValueError(f"every stream must give {tokens} tokens, these gave {sorted(s.tokens for s in streams)}")
    began = min(s.sent for s in streams)
    ended = max(s.arrivals[-1][0] for s in streams)
    first = [s.arrivals[0][0] - s.sent for s in streams]
    between = [gap for s in streams for gap in _gaps(s)] or [0.0]
    return Round(
        tokens_per_s=sum(s.tokens for s in streams) / max(ended - began, 1e-9),
        first_token_s=statistics.median(first),
        first_token_p95_s=percentile(first, 0.95),
        between_tokens_s=statistics.median(between),
        between_tokens_p95_s=percentile(between, 0.95),
    )


def _gaps(stream: Stream) -> list[float]:
    """Time from token to token; the tokens of one piece share the time since the piece before equally."""
    gaps = []
    for (before, _), (at, count) in zip(stream.arrivals, stream.arrivals[1:], strict=False):
        gaps += [(at - before) / count] * count
    return gaps


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]


def median_round(rounds: Sequence[Round]) -> Round:
    """The median of every figure over several rounds."""
    return Round(*(statistics.median(getattr(r, f) for r in rounds) for f in Round.__dataclass_fields__))


def ratio(ours: Mapping[int, Round], theirs: Mapping[int, Round]) -> float | None:
    """Throughput over throughput: the median over the rounds (by number) that both have, None where there are none.

    Rounds are compared one by one because both saw the same state of the machine only within a round.
    """
    shared = ours.keys() & theirs.keys()
    return statistics.median(ours[n].tokens_per_s / theirs[n].tokens_per_s for n in shared) if shared else None
