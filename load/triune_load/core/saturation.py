"""Where a server is full: the load beyond which more is of no use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

_ENOUGH = 0.9  # of the most tokens a second that any load gave
_KEEPS_UP = 0.95  # of the requests that were asked for


@dataclass(frozen=True)
class Saturation:
    """The last load that is well served, and why."""

    load: str
    value: float  # 0: not even the least load is
    reached: bool  # whether a higher load was tried and is not well served
    why: str


def find_saturation(steps: Sequence[Mapping[str, Any]], *, slo_share: float) -> Saturation | None:
    """The saturation point among steps of one kind of load; None if fewer than two were tried.

    With objectives it is the highest load up to which enough requests kept them. Without, of streams the fewest that give nine
    tenths of the most tokens a second; of rates the highest up to which the server kept up.
    """
    ranked = sorted(
        (s for s in steps if s["kind"] in ("streams", "rate") and s["figures"]["requests"]), key=lambda s: float(s["value"])
    )
    if len(ranked) < 2:
        return None
    if "good_share" in ranked[0]["figures"]:
        wanted = f"at least {slo_share:.0%} of requests within the objectives"
        return _last_good(ranked, lambda s: s["figures"]["good_share"] >= slo_share, wanted)
    if ranked[0]["kind"] == "rate":
        keeps_up = f"the server answers at least {_KEEPS_UP:.0%} of what is asked as it is asked"
        return _last_good(ranked, lambda s: s["figures"]["requests_per_s"] >= _KEEPS_UP * _offered(s), keeps_up)
    most = max(s["figures"]["tokens_per_s"] for s in ranked)
    first = next(s for s in ranked if s["figures"]["tokens_per_s"] >= _ENOUGH * most)
    if first is ranked[-1]:
        return _of(first, False, "throughput still grows here, and more was not tried")
    share = first["figures"]["tokens_per_s"] / max(most, 1e-9)
    return _of(first, True, f"{share:.0%} of the most tokens/s that any load gave; more streams only wait longer")


def _last_good(ranked: Sequence[Mapping[str, Any]], good: Callable[[Mapping[str, Any]], bool], why: str) -> Saturation:
    """The last of the loads that are good from the least on: one good load above a bad one is luck."""
    kept = list(takewhile(good, ranked))
    if not kept:
        return Saturation(f"below {ranked[0]['load']}", 0.0, True, f"at no load: {why}")
    reached = len(kept) < len(ranked)
    return _of(kept[-1], reached, why if reached else f"{why}; more was not tried")


def _offered(step: Mapping[str, Any]) -> float:
    figures = step["figures"]
    intended = figures["samples"]["intended_s"]
    seconds = max(intended) - min(intended) if len(intended) > 1 else 0.0
    return (len(intended) - 1) / seconds if seconds else float(step["value"])


def _of(step: Mapping[str, Any], reached: bool, why: str) -> Saturation:
    return Saturation(str(step["load"]), float(step["value"]), reached, why)
