"""Everything about one row whose token is not the host's: what is asked, what weighs what, where every border lies."""

from __future__ import annotations

from dataclasses import fields
from math import ceil

import numpy as np
from numpy.typing import NDArray

from triune_runtime.sampling.adjusting import Adjuster
from triune_runtime.sampling.chance import uniform_number
from triune_runtime.sampling.columns import Columns, Sites
from triune_runtime.sampling.host import choose
from triune_runtime.sampling.weights import BEST, weigh

_SHOWN = 3  # neighbours of a place in the ranking


def diagnosis(logits: NDArray[np.float32], columns: Columns, token: int, logit: float) -> str:
    """Lines about a row.

    Args:
        logits: [1, vocab_size].
        columns: of one row.
        token: that the other side chose.
        logit: of it, by the other side; NaN: it says that there is none to choose.
    """
    own = choose(logits, columns)
    lines = [f"there: token {token}, logit {logit}; the host: token {own.tokens[0]}, usable {own.usable[0]}"]
    asked = {field.name: getattr(columns, field.name) for field in fields(columns) if field.name != "masks"}
    lines.append("asked: " + ", ".join(f"{name} {_value(value)}" for name, value in asked.items() if len(value)))
    row = logits[0]
    odd = np.flatnonzero(~np.isfinite(row) | (np.abs(row) > 1e30))
    lines.append(f"logits: {row.min()} to {row.max()}, {len(np.unique(row))} different; out of the way: {_some(odd, row)}")
    with np.errstate(all="ignore"):
        scores = Adjuster(columns, len(row)).scores(row, 0).copy() if columns.adjusted[0] else row
    lines += [
        f"  {who} {at}: {_of_token(at, logits, scores, columns)}" for who, at in (("there", token), ("host", own.tokens[0]))
    ]
    lines.append(f"scores: not finite besides minus infinity: {_some(np.flatnonzero(~(scores < np.inf)), scores)}")
    if columns.greedy[0] or not np.isfinite(scores.max()):
        best = np.flatnonzero(scores == scores.max())
        return "\n".join([*lines, f"best: {_some(best, scores)}"])
    return "\n".join([*lines, *_ranking(scores, columns, (token, int(own.tokens[0])))])


def _ranking(scores: NDArray[np.float32], columns: Columns, tokens: tuple[int, int]) -> list[str]:
    """By the definition: all tokens ranked, all weights added up."""
    temperature = max(columns.temperature[0], np.float32(1e-6))
    with np.errstate(all="ignore"):
        below = scores.max() / temperature + np.float32(0) - scores / temperature
    weights = np.where(np.isfinite(below), weigh(np.nan_to_num(below, nan=np.inf)), 0)
    order = np.lexsort((np.arange(len(scores)), below))
    summed = np.cumsum(weights[order])
    kept, top_k = int(summed[-1]), int(columns.top_k[0])
    lines = [f"weights: {np.count_nonzero(weights)} tokens weigh something, together {kept}"]
    if 0 < top_k < len(order):
        kept = int(summed[top_k - 1])
        lines.append(f"top-k {top_k} keeps {kept}")
    if columns.top_p[0] < 1:
        border = ceil(float(columns.top_p[0]) * kept)
        kept = min(kept, int(summed[min(int(summed.searchsorted(border)), len(order) - 1)]))
        lines.append(f"top-p {columns.top_p[0]!r} looks for {border}, keeps {kept}")
    if columns.min_p[0] > 0:
        least = ceil(float(columns.min_p[0]) * BEST)
        kept = min(kept, int(weights[weights >= least].sum()))
        lines.append(f"min-p {columns.min_p[0]!r} wants {least}, keeps {kept}")
    uniform = uniform_number(int(columns.seed[0]), int(columns.position[0]))
    target = min(int(uniform * kept), kept - 1)
    place = int(summed.searchsorted(target, side="right"))
    lines.append(f"uniform {uniform!r} looks for {target}: place {place}, token {order[place]}")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    for name, at in (("drawn", place), ("there", int(rank[tokens[0]])), ("host", int(rank[tokens[1]]))):
        for near in range(max(0, at - _SHOWN), min(len(order), at + _SHOWN + 1)):
            one = order[near]
            bits = f"{np.float32(below[one]).view(np.uint32):08x}"
            lines.append(
                f"  {name}: place {near} token {one} below {below[one]!r} ({bits}) weight {weights[one]} up to {summed[near]}"
            )
    return lines


def _of_token(token: int, logits: NDArray[np.float32], scores: NDArray[np.float32], columns: Columns) -> str:
    if not 0 <= token < len(scores):
        return "no token"
    sites = {name: getattr(columns, name) for name in ("biases", "seen", "bans")}
    found = {name: value.values[value.tokens == token].tolist() for name, value in sites.items()}
    allowed = bool(columns.masks[0, token // 32] >> np.uint32(token % 32) & np.uint32(1)) if len(columns.masked) else True
    return f"logit {logits[0, token]!r}, score {scores[token]!r}, allowed {allowed}, {found}"


def _value(value: NDArray[np.generic] | Sites) -> str:
    return f"{len(value)} sites" if isinstance(value, Sites) else repr(value[0].item())


def _some(tokens: NDArray[np.int64], values: NDArray[np.float32]) -> str:
    shown = ", ".join(f"{token}: {values[token]}" for token in tokens[:8].tolist())
    return f"{len(tokens)}" + (f" ({shown})" if shown else "")
