"""Where a server is full: the load beyond which more is of no use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ENOUGH = 0.9  # of the most tokens a second that any load gave
_KEEPS_UP = 0.95  # of the requests that were asked for


@dataclass(frozen=True)
class Saturation:
    """The last load that is well served, and why."""

    load: str
    value: float
    why: str


def find_saturation(steps: Sequence[Mapping[str, Any]], *, slo_share: float) -> Saturation | None:
    """The saturation point among steps of one kind of load; None if fewer than two were tried.

    With objectives it is the highest load at which enough requests kept them. Without, of streams the fewest that give nine
    tenths of the most tokens a second; of rates the highest that the server kept up with.
    """
    ranked = sorted(
        (s for s in steps if s["kind"] in ("streams", "rate") and s["figures"]["requests"]), key=lambda s: float(s["value"])
    )
    if len(ranked) < 2:
        return None
    if "good_share" in ranked[0]["figures"]:
        good = [s for s in ranked if s["figures"]["good_share"] >= slo_share]
        if not good:
            return Saturation(
                f"below {ranked[0]['load']}", 0.0, f"no load had {slo_share:.0%} of its requests within the objectives"
            )
        return _of(
            good[-1],
            f"{good[-1]['figures']['good_share']:.1%} of requests within the objectives; at least {slo_share:.0%} wanted",
        )
    most = max(s["figures"]["tokens_per_s"] for s in ranked)
    if ranked[0]["kind"] == "streams":
        first = next(s for s in ranked if s["figures"]["tokens_per_s"] >= _ENOUGH * most)
        share = first["figures"]["tokens_per_s"] / max(most, 1e-9)
        return _of(first, f"{share:.0%} of the most tokens/s that any load gave; more streams only wait longer")
    kept = [s for s in ranked if s["figures"]["requests_per_s"] >= _KEEPS_UP * _offered(s)]
    if not kept:
        return Saturation(f"below {ranked[0]['load']}", 0.0, "the server kept up with no rate")
    return _of(kept[-1], "the highest rate that the server kept up with")


def _offered(step: Mapping[str, Any]) -> float:
    figures = step["figures"]
    intended = figures["samples"]["intended_s"]
    seconds = max(intended) - min(intended) if len(intended) > 1 else 0.0
    return (len(intended) - 1) / seconds if seconds else float(step["value"])


def _of(step: Mapping[str, Any], why: str) -> Saturation:
    return Saturation(str(step["load"]), float(step["value"]), why)
