"""Two runs side by side: ratios with confidence intervals, and whether a difference is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_FIGURES = (("first_token_ms", "first token"), ("time_per_token_ms", "time per token"), ("end_to_end_ms", "end to end"))
_RATES = (("tokens_per_s", "tokens/s"), ("requests_per_s", "requests/s"), ("goodput_per_s", "goodput/s"))
_RESAMPLES = 1000
_CHANCE = 0.01  # a difference less likely than this by chance is called one
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One figure of two runs at one load."""

    load: str
    figure: str
    first: float
    second: float
    ratio: float  # second over first
    interval: tuple[float, float] | None  # 95%, of the ratio; None for rates, of which a run has one
    chance: float | None  # that two runs of one server differ so much: Mann and Whitney's test, two-sided
    better: bool | None  # whether the second is; None if it may be chance


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """The differences of two results, for every load that both have; by place where neither load is in both."""
    loads = {step["load"]: step for step in second["steps"]}
    pairs = [(step, loads[step["load"]]) for step in first["steps"] if step["load"] in loads]
    if not pairs:
        pairs = list(zip(first["steps"], second["steps"], strict=False))
    return [one for a, b in pairs for one in _differences(a, b)]


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    load = a["load"] if a["load"] == b["load"] else f"{a['load']} : {b['load']}"
    found = []
    for name, title in _FIGURES:
        one, other = (_column(step["figures"]["samples"].get(name, [])) for step in (a, b))
        if one.size < 2 or other.size < 2:
            continue
        chance = mann_whitney(one, other)
        for share, which in ((0.5, "p50"), (0.95, "p95")):
            ratio, interval = ratio_of_quantiles(one, other, share)
            sure = chance < _CHANCE and not interval[0] <= 1 <= interval[1]
            values = (float(np.quantile(one, share)), float(np.quantile(other, share)))
            found.append(
                Difference(load, f"{title} {which}, ms", *values, ratio, interval, chance, ratio < 1 if sure else None)
            )
    for name, title in _RATES:
        before, after = a["figures"].get(name), b["figures"].get(name)
        if before and after is not None:
            found.append(Difference(load, title, before, after, after / before, None, None, None))
    return found


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([v for v in values if v is not None], np.float64)


def ratio_of_quantiles(one: Floats, other: Floats, share: float, *, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """The second's quantile over the first's, and its 95% interval by bootstrap."""
    rng = np.random.default_rng(seed)
    resamples = int(np.clip(20_000_000 // (one.size + other.size), 100, _RESAMPLES))

    def quantiles(values: Floats) -> Floats:
        return np.array([np.quantile(rng.choice(values, values.size), share) for _ in range(resamples)])

    ratios = quantiles(other) / np.maximum(quantiles(one), 1e-9)
    low, high = np.percentile(ratios, [2.5, 97.5])
    middle = float(np.quantile(other, share) / max(float(np.quantile(one, share)), 1e-9))
    return middle, (float(low), float(high))


def mann_whitney(one: Floats, other: Floats) -> float:
    """How likely two samples of one population differ at least so much in rank; by the normal approximation, ties counted."""
    n, m = one.size, other.size
    both = np.concatenate([one, other])
    _, places, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    ties = float((counts.astype(np.float64) ** 3 - counts).sum())
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all values are equal
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))
