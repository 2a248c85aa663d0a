"""Percentiles with confidence intervals, by bootstrap over requests. Arrays in, figures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SHARES = (0.5, 0.9, 0.95, 0.99)
_RESAMPLES = 400
_DRAWS = 20_000_000  # numbers that all resamples of a figure may take together
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """A figure's values in one run; all in the unit of the values."""

    count: int
    mean: float
    deviation: float
    least: float
    most: float
    percentiles: dict[str, float]  # p50, p90, p95, p99
    intervals: dict[str, tuple[float, float]]  # 95% confidence, of the mean too

    def as_json(self, digits: int = 4) -> dict[str, Any]:
        """Rounded, flat."""
        raw = asdict(self)
        percentiles, intervals = raw.pop("percentiles"), raw.pop("intervals")
        rounded = {k: round(v, digits) for k, v in (raw | percentiles).items()}
        return rounded | {"ci95": {k: [round(x, digits) for x in v] for k, v in intervals.items()}}


def describe(values: Sequence[float] | Floats, groups: Sequence[int] | None = None, *, seed: int = 0) -> Distribution | None:
    """The distribution of values, None if there are none.

    Args:
        values: one for each request, or several.
        groups: which request each is of, 0 to n - 1; the values of a request are drawn together, since they are alike.
        seed: of the bootstrap.
    """
    flat = np.asarray(values, np.float64)
    if flat.size == 0:
        return None
    order = np.argsort(flat, kind="stable")
    ranked = flat[order]
    owners = (np.arange(flat.size) if groups is None else np.asarray(groups, np.int64))[order]
    percentiles = {name_of(share): float(_quantile(ranked, share)) for share in SHARES}
    return Distribution(
        count=int(flat.size), mean=float(flat.mean()), deviation=float(flat.std()), least=float(ranked[0]),
        most=float(ranked[-1]),
        percentiles=percentiles, intervals=_intervals(ranked, owners, seed),
    )  # fmt: skip


def name_of(share: float) -> str:
    """p50 for 0.5, p99.9 for 0.999."""
    return f"p{share * 100:g}"


def _quantile(ranked: Floats, share: float) -> np.float64:
    """The smallest value that at least `share` of them do not exceed."""
    found: np.float64 = ranked[max(0, int(np.ceil(share * ranked.size - 1e-9)) - 1)]
    return found


def _intervals(ranked: Floats, owners: npt.NDArray[np.int64], seed: int) -> dict[str, tuple[float, float]]:
    """What the middle 95% of resamples say. A resample weighs each request by how often it was drawn."""
    requests = int(owners.max()) + 1
    if requests < 2:
        return {}
    rng = np.random.default_rng(seed)
    resamples = int(np.clip(_DRAWS // ranked.size, 100, _RESAMPLES))
    found = np.empty((resamples, len(SHARES) + 1))
    for n in range(resamples):
        weights = np.bincount(rng.integers(0, requests, requests), minlength=requests)[owners]
        upto = np.cumsum(weights)
        places = np.searchsorted(upto, np.ceil(np.array(SHARES) * upto[-1] - 1e-9))
        found[n, 0] = weights @ ranked / max(1, upto[-1])
        found[n, 1:] = ranked[np.minimum(places, ranked.size - 1)]
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    names = ("mean", *(name_of(share) for share in SHARES))
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def interval_of_share(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    if of == 0:
        return 0.0, 1.0
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return max(0.0, middle - half), min(1.0, middle + half)
