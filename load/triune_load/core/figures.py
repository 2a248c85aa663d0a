"""Figures of a load from its answers: throughput, latencies, errors, what happened when. Milliseconds for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .answer import Answer
from .slo import Slo
from .statistics import Distribution, describe, interval_of_share

Json = dict[str, Any]
LATENCIES = ("first_token_ms", "between_ms", "time_per_token_ms", "end_to_end_ms", "queue_ms", "lag_ms")
_SAMPLES = 20_000  # requests whose own figures are kept, for comparisons


def latencies(answer: Answer) -> dict[str, float | None]:
    """Seconds of one answer, from its intended start; None where it has none."""
    first = last = between = None
    if answer.times and answer.failure is None:
        first = answer.times[0] - answer.intended
        if not answer.cancelled:
            last = answer.ended - answer.intended
            tokens = answer.token_count
            if tokens > 1 and len(answer.times) > 1:
                between = (answer.times[-1] - answer.times[0]) / (tokens - 1)
    return {"first_token": first, "between": between, "end_to_end": last}


def gaps(answer: Answer) -> list[float]:
    """Seconds from token to token; the tokens of one chunk share the time since the chunk before equally."""
    found: list[float] = []
    before = None
    for at, tokens in zip(answer.times, answer.tokens_of_chunks(), strict=True):
        if before is not None and tokens:
            found += [(at - before) / tokens] * tokens
        if before is None or tokens:
            before = at
    return found


def figures(answers: Sequence[Answer], *, begin: float, slo: Slo | None, violating: frozenset[str] = frozenset()) -> Json:
    """The figures of the answers that count.

    Args:
        answers: those intended after the warm-up.
        begin: when the warm-up was over.
        slo: what a request must keep to count as good.
        violating: identities of answers that are wrong: they are never good.
    """
    ended = [a for a in answers if a.failure is None]
    whole = [a for a in ended if not a.cancelled]
    until = max((a.ended for a in answers), default=begin)
    begin = min((a.intended for a in answers), default=begin)
    seconds = max(until - begin, 1e-9)
    own = [latencies(a) for a in answers]
    tokens = sum(a.token_count for a in ended)
    found: Json = {
        "requests": len(answers), "whole": len(whole), "left": len(ended) - len(whole), "failed": len(answers) - len(ended),
        "error_share": round((len(answers) - len(ended)) / max(1, len(answers)), 6), "seconds": round(seconds, 4),
        "requests_per_s": round(len(whole) / seconds, 4), "tokens_per_s": round(tokens / seconds, 3),
        "input_tokens_per_s": round(sum(a.input_tokens or 0 for a in ended) / seconds, 3),
        "input_tokens": _rounded(describe([a.input_tokens for a in ended if a.input_tokens])),
        "output_tokens": _rounded(describe([a.token_count for a in whole])), "output_tokens_in_all": tokens,
    }  # fmt: skip
    if slo is not None:
        kept = [_good(a, one, slo, violating) for a, one in zip(answers, own, strict=True) if not a.cancelled]
        found |= {
            "good_share": round(sum(kept) / max(1, len(kept)), 6), "goodput_per_s": round(sum(kept) / seconds, 4),
            "good_share_ci95": [round(x, 6) for x in interval_of_share(sum(kept), len(kept))],
        }  # fmt: skip
    found["latencies"] = _distributions(answers, own)
    found["errors"] = _errors(answers)
    found["samples"] = _samples(answers, own)
    return found


def _good(answer: Answer, own: dict[str, float | None], slo: Slo, violating: frozenset[str]) -> bool:
    return answer.failure is None and answer.request.identity not in violating and slo.kept(own)


def _distributions(answers: Sequence[Answer], own: Sequence[dict[str, float | None]]) -> Json:
    between, owners = [], []
    for n, answer in enumerate(a for a in answers if a.failure is None):
        one = gaps(answer)
        between += one
        owners += [n] * len(one)
    found = {
        "first_token_ms": describe(_ms(one["first_token"] for one in own)),
        "between_ms": describe(np.array(between) * 1e3, owners),
        "time_per_token_ms": describe(_ms(one["between"] for one in own)),
        "end_to_end_ms": describe(_ms(one["end_to_end"] for one in own)),
        "queue_ms": describe(_ms(a.queue_s for a in answers)),
        "lag_ms": describe(_ms(a.started - a.intended for a in answers)),
    }
    return {name: one.as_json() for name, one in found.items() if one is not None}


def _ms(values: Any) -> list[float]:
    return [value * 1e3 for value in values if value is not None]


def _rounded(found: Distribution | None) -> Json | None:
    return None if found is None else found.as_json(2)


def _errors(answers: Sequence[Answer]) -> list[Json]:
    kinds = Counter(a.failure.kind for a in answers if a.failure is not None)
    examples = {a.failure.kind: a.failure.message for a in reversed(answers) if a.failure is not None}
    return [{"kind": kind, "count": count, "example": examples[kind]} for kind, count in kinds.most_common()]


def _samples(answers: Sequence[Answer], own: Sequence[dict[str, float | None]]) -> Json:
    """The requests' own figures, ms to a hundredth, and lengths; every n-th of very many."""
    step = max(1, -(-len(answers) // _SAMPLES))
    kept = list(zip(answers, own, strict=True))[::step]

    def column(name: str) -> list[float | None]:
        return [None if (value := one[name]) is None else round(value * 1e3, 2) for _, one in kept]

    return {
        "intended_s": [round(a.intended, 4) for a, _ in kept], "first_token_ms": column("first_token"),
        "time_per_token_ms": column("between"), "end_to_end_ms": column("end_to_end"),
        "input_tokens": [a.input_tokens for a, _ in kept], "output_tokens": [a.token_count for a, _ in kept],
    }  # fmt: skip


def series(answers: Sequence[Answer], *, begin: float, bucket_s: float = 1.0) -> Json:
    """What happened in each second since `begin`: starts, ends, errors, tokens; and how many were open at its end."""
    if not answers:
        return {"bucket_s": bucket_s, "started": [], "ended": [], "failed": [], "tokens": [], "open": []}
    until = max(a.ended for a in answers)
    while (until - begin) / bucket_s > 600:
        bucket_s *= 2
    count = max(1, int((until - begin) / bucket_s) + 1)

    def histogram(times: Sequence[float], weights: Sequence[float] | None = None) -> Any:
        places = np.clip(((np.array(times, np.float64) - begin) / bucket_s).astype(np.int64), 0, count - 1)
        return np.bincount(places, weights=weights, minlength=count)

    started = histogram([a.intended for a in answers])
    ended = histogram([a.ended for a in answers])
    failed = histogram([a.ended for a in answers if a.failure is not None])
    times = [at for a in answers for at in a.times]
    tokens = histogram(times, [float(n) for a in answers for n in a.tokens_of_chunks()])
    return {
        "bucket_s": bucket_s, "started": started.tolist(), "ended": ended.tolist(), "failed": failed.tolist(),
        "tokens": [round(float(n), 1) for n in tokens], "open": np.cumsum(started - ended).tolist(),
    }  # fmt: skip
