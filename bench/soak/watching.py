"""What is written down every few seconds, and what is said of it at the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..chaos.answers import ANSWERED, REFUSED, Outcome
from ..chaos.footprint import Footprint
from .trend import trend

# MiB that a process may grow by in a run, whatever its noise: what an allocator rounds up.
ALLOWED_MIB = 8.0
_ALLOWED_DESCRIPTORS = 4.0
_SLOWER = 0.5  # of the median latency: a machine that others use, too, is not equally fast for an hour
Line = dict[str, Any]


def line(at_s: float, footprint: Footprint, outcomes: Sequence[Outcome], held: float | None) -> Line:
    """One look, as JSON: seconds since the beginning, MiB and descriptors by role, latencies in seconds by protocol."""
    seconds: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.kind == ANSWERED:
            seconds.setdefault(outcome.protocol, []).append(outcome.seconds)
    wrong = [outcome for outcome in outcomes if outcome.kind not in (ANSWERED, REFUSED)]
    return {
        "s": round(at_s, 1),
        "memory_mib": _sums((m.role, m.memory_mib) for m in footprint.members),
        "descriptors": _sums((m.role, float(m.descriptors)) for m in footprint.members),
        "pids": sorted(m.pid for m in footprint.members),
        "answered": sum(map(len, seconds.values())),
        "refused": sum(outcome.kind == REFUSED for outcome in outcomes),
        "wrong": [f"{one.kind} over {one.protocol}: {one.detail}" for one in wrong],
        "held": held,
        "p50_s": {name: round(statistics.median(some), 3) for name, some in sorted(seconds.items())},
        "p95_s": {name: round(sorted(some)[math.ceil(0.95 * len(some)) - 1], 3) for name, some in sorted(seconds.items())},
    }


def _sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for role, value in pairs:
        found[role] = round(found.get(role, 0.0) + value, 1)
    return dict(sorted(found.items()))


def row(lines: Sequence[Line], figure: str, name: str) -> tuple[list[float], list[float]]:
    """Seconds and values of one name of a figure, where it is there."""
    there = [(one["s"], one[figure][name]) for one in lines if name in one[figure]]
    return [at for at, _ in there], [value for _, value in there]


def names(lines: Sequence[Line], figure: str) -> list[str]:
    """All names that a figure has."""
    return sorted({name for one in lines for name in one[figure]})


def judge(lines: Sequence[Line], holds: float | None, left: Sequence[str] = ()) -> dict[str, Any]:
    """The verdict.

    Args:
        holds: requests that the server holds when all have ended.
        left: what its end left behind.
    """
    failures = [said for one in lines for said in one["wrong"]][:20]
    if len({tuple(one["pids"]) for one in lines}) > 1:
        failures.append("a process has ended and another has taken its place")
    if holds != 0:
        failures.append(f"it holds {holds} requests although nobody asks")
    growth: dict[str, Mapping[str, float]] = {}
    for figure, allowed in (("memory_mib", ALLOWED_MIB), ("descriptors", _ALLOWED_DESCRIPTORS)):
        for name in names(lines, figure):
            if (found := trend(*row(lines, figure, name))) is None:
                continue
            growth[f"{figure} {name}"] = {"growth": round(found.growth, 2), "noise": round(found.noise, 2)}
            if found.grows(allowed):
                failures.append(f"{figure} of {name} grows by {found.growth:.1f}, its noise is {found.noise:.1f}")
    for name in names(lines, "p50_s"):
        at, values = row(lines, "p50_s", name)
        if (found := trend(at, values)) is not None:
            growth[f"p50_s {name}"] = {"growth": round(found.growth, 3), "noise": round(found.noise, 3)}
            if found.grows(_SLOWER * statistics.median(values)):
                failures.append(f"the median latency of {name} grows by {found.growth:.2f} s in the run")
    return {
        "verdict": "failed" if failures or left or not lines else "passed",
        "failures": [*failures, *left],
        "minutes": round(lines[-1]["s"] / 60, 1) if lines else 0.0,
        "answered": sum(one["answered"] for one in lines),
        "refused": sum(one["refused"] for one in lines),
        "wrong": sum(len(one["wrong"]) for one in lines),
        "growth": growth,
    }
