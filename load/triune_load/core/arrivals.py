"""When requests are to start, in seconds from the begin of a run: evenly, at random, in bursts, after a ramp."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import count

KINDS = ("poisson", "constant", "bursts")


def arrivals(kind: str, rate: float, rng: random.Random, *, ramp_s: float = 0.0, burst: int = 1) -> Iterator[float]:
    """Starts without end, never decreasing.

    Args:
        kind: one of `KINDS`.
        rate: requests a second, once the ramp is over.
        ramp_s: seconds over which the rate grows evenly from 0.
        burst: requests that start together, of `bursts`; the rate stays that of single requests.
    """
    for place in _places(kind, rng, burst):
        yield _when(place, rate, ramp_s)


def _places(kind: str, rng: random.Random, burst: int) -> Iterator[float]:
    """Starts at a rate of 1."""
    if kind == "constant":
        yield from (float(n) for n in count())
    elif kind == "bursts":
        at = 0.0
        while True:
            at += rng.expovariate(1 / burst)
            yield from [at] * burst
    else:
        at = 0.0
        while True:
            at += rng.expovariate(1.0)
            yield at


def _when(place: float, rate: float, ramp_s: float) -> float:
    """The time at which a rate that grows over `ramp_s` has brought `place` requests."""
    within_ramp = rate * ramp_s / 2
    if place < within_ramp:
        return math.sqrt(2 * place * ramp_s / rate)
    return ramp_s + (place - within_ramp) / rate


def stream_starts(streams: int, ramp_s: float) -> list[float]:
    """When each of so many streams begins to ask, one after the other over the ramp."""
    return [ramp_s * n / streams for n in range(streams)]
