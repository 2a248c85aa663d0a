"""`triune plan --simulate`: a load on any number of replicas of a plan; latencies, goodput, and how many replicas it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from .replica import Limits, Pace, Served, serve
from .roofline import Roofline
from .traffic import Traffic

Floats = NDArray[np.float64]
PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("first_token", "between", "end_to_end")
ENOUGH = 0.99  # of the requests must keep the objectives for a number of replicas to be enough
_MOST_REPLICAS = 1 << 14
_SEARCHED = 20_000  # requests that the search for a number of replicas looks at


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation found. Seconds; a request without a second token has no time between tokens."""

    replicas: int
    requests: int
    seconds: float  # from the first arrival to the last token
    tokens: int
    latencies: Mapping[str, tuple[float, ...]]  # at `PERCENTILES`
    kept: float  # share of the requests that keep every objective
    goodput: float  # of these, a second
    sent_back: int  # sequences that gave their KV memory back for others
    busy: float  # share of the replicas' time in which they compute

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def parse_slo(text: str) -> dict[str, float]:
    """`first_token=2s,between=50ms`, as `triune load` takes it: each request's own, `between` its mean.

    Raises:
        BuildError: no such latency, or no duration.
    """
    found = {}
    for item in text.split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        unit = next((unit for unit in ("ms", "s") if value.endswith(unit)), "")
        try:
            seconds = float(value.removesuffix(unit)) * (1e-3 if unit == "ms" else 1)
        except ValueError:
            seconds = 0.0
        if name not in LATENCIES or not unit or not 0 < seconds < 1e9:
            raise BuildError(
                f"--slo has {item.strip()!r}; expected {', '.join(LATENCIES)} with ms or s",
                "e.g. --slo first_token=2s,between=50ms",
            )
        found[name] = seconds
    return found


def pace_of(roofline: Roofline, limits: Limits) -> Pace:
    """The roofline's steps as tables by tokens and sequences."""
    plan, most = roofline.plan, limits.step_tokens + limits.sequences
    context, pair = _slope(lambda n: roofline.step(1, n)), _slope(lambda n: roofline.step(0, 0, 1, n))
    sampled = np.unique(np.concatenate([np.arange(min(most, 512) + 1), np.geomspace(1, most, 400).astype(int)]))
    idle = roofline.engine.overhead(len(plan.geometry.layers), 0)
    overhead = [idle, *(roofline.step(n, 0) - roofline.step(0, 0, n, 0) + idle for n in range(1, limits.sequences + 1))]
    linear = np.interp(np.arange(most + 1), sampled, [roofline.step(0, 0, int(n), 0) - idle for n in sampled])
    return Pace(linear=linear.tolist(), overhead=overhead, context=context, pair=pair)


def _slope(seconds: Callable[[float], float], far: float = 1e6) -> float:
    return (seconds(2 * far) - seconds(far)) / far


def simulate(
    traffic: Traffic, replicas: int, pace: Pace, limits: Limits, objectives: Mapping[str, float] | None = None
) -> Outcome:
    """Serve the whole load.

    Raises:
        BuildError: a request that no replica has memory for.
    """
    longest = int((traffic.prompt + traffic.output).max())
    if longest > limits.kv_tokens:
        raise BuildError(
            f"a request of {longest:,} tokens does not fit: a replica has KV memory for {limits.kv_tokens:,}",
            "plan more GPUs for a replica, --kv-dtype fp8, or a trace of shorter requests",
        )
    chosen = dispatch(traffic, replicas, pace, limits)
    order = np.argsort(chosen, kind="stable")
    bounds = np.searchsorted(chosen[order], np.arange(replicas + 1))
    first, last = np.empty(len(traffic)), np.empty(len(traffic))
    gaps, counts, served = list[Floats](), list[NDArray[np.int64]](), list[Served]()
    for begin, end in pairwise(bounds.tolist()):
        mine = order[begin:end]
        if not len(mine):
            continue
        one = serve(traffic.arrival[mine].tolist(), traffic.prompt[mine].tolist(), traffic.output[mine].tolist(), pace, limits)
        first[mine], last[mine] = one.first, one.last
        gaps.append(np.array(one.gaps))
        counts.append(np.array(one.counts, np.int64))
        served.append(one)
    return _outcome(traffic, replicas, first, last, (np.concatenate(gaps), np.concatenate(counts)), served, objectives or {})


def dispatch(traffic: Traffic, replicas: int, pace: Pace, limits: Limits) -> NDArray[np.int64]:
    """Which replica gets each request: that which would be done first with the work it has, as a balancer that counts tokens
    thinks; with one sequence at a time it is right about that."""
    prompt, output, most = traffic.prompt, traffic.output, limits.sequences
    linear = np.array(pace.linear)
    whole, rest = np.divmod(prompt, limits.step_tokens)
    alone = whole * (linear[limits.step_tokens] + pace.overhead[0]) + np.where(rest, linear[rest] + pace.overhead[0], 0.0)
    share = alone if most == 1 else prompt * (linear[limits.step_tokens] + pace.overhead[0]) / limits.step_tokens
    rounds = output - 1
    attended = pace.context * rounds * (prompt + (output - 2) / 2)
    work = share + pace.pair * prompt.astype(float) ** 2 / 2 + rounds * (linear[most] + pace.overhead[most]) / most + attended
    queue = [(0.0, number) for number in range(replicas)]
    heapify(queue)
    chosen = np.empty(len(traffic), np.int64)
    for at, (when, seconds) in enumerate(zip(traffic.arrival.tolist(), work.tolist(), strict=True)):
        until, number = queue[0]
        chosen[at] = number
        heapreplace(queue, (max(until, when) + seconds, number))
    return chosen


def needed(
    traffic: Traffic, pace: Pace, limits: Limits, objectives: Mapping[str, float], group: int = 1
) -> int | None:  # fmt: skip
    """The fewest replicas with which 99% of the requests keep the objectives; None: more of them do not help.

    Looks at the first 20,000 requests: doubles the replicas until they are enough, then halves the gap.

    Args:
        group: replicas come in so many.
    """
    sample = traffic.first(_SEARCHED)

    def enough(groups: int) -> bool:
        return simulate(sample, groups * group, pace, limits, objectives).kept >= ENOUGH

    most = 1
    while not enough(most):
        most *= 2
        if most * group > _MOST_REPLICAS or most > 2 * len(sample):
            return None
    few = most // 2  # not enough
    while most - few > 1:
        middle = (most + few) // 2
        most, few = (middle, few) if enough(middle) else (most, middle)
    return most * group


def _outcome(
    traffic: Traffic, replicas: int, first: Floats, last: Floats, gaps: tuple[Floats, NDArray[np.int64]],
    served: list[Served], objectives: Mapping[str, float],
) -> Outcome:  # fmt: skip
    waits, totals = first - traffic.arrival, last - traffic.arrival
    means = (last - first) / np.maximum(traffic.output - 1, 1)
    found: dict[str, Any] = {"first_token": waits, "between": means, "end_to_end": totals}
    kept = np.ones(len(traffic), bool)
    for name, limit in objectives.items():
        kept &= found[name] <= limit
    seconds = float(last.max() - traffic.arrival[0])
    return Outcome(
        replicas=replicas,
        requests=len(traffic),
        seconds=seconds,
        tokens=int(traffic.output.sum()),
        latencies={
            "first_token": tuple(float(v) for v in np.percentile(waits, PERCENTILES)),
            "between": _weighted(*gaps),
            "end_to_end": tuple(float(v) for v in np.percentile(totals, PERCENTILES)),
        },
        kept=float(kept.mean()),
        goodput=float(kept.sum()) / seconds,
        sent_back=sum(one.sent_back for one in served),
        busy=sum(one.busy for one in served) / replicas / seconds,
    )


def _weighted(values: Floats, counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Percentiles of values that each stand for so many."""
    if not len(values):
        return (0.0,) * len(PERCENTILES)
    order = np.argsort(values)
    ranks = np.cumsum(counts[order])
    at = np.searchsorted(ranks, np.array(PERCENTILES) / 100 * ranks[-1])
    return tuple(float(v) for v in values[order][np.minimum(at, len(values) - 1)])
