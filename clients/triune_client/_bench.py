"""Measures a server with one prompt: so many answers, so many of them at a time. Knows clients; no socket."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ._sync import SyncClient
from ._types import Completion


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run of answers took; times in seconds. Percentiles are over the answers."""

    answers: int
    streams: int  # asked for at a time
    input_tokens: int
    output_tokens: int
    wall_s: float
    output_tokens_per_s: float  # of all streams together, the reading of the prompts included
    first_token_p50_s: float
    first_token_p95_s: float
    answer_p50_s: float
    answer_p95_s: float
    tokens_per_s_of_one_p50: float | None  # of one stream after its first token; None where answers are too short to tell


def run(client: SyncClient, prompt: str, *, answers: int, streams: int) -> Figures:
    """Asks for `answers` answers to `prompt`, `streams` at a time. One answer before them is not counted.

    Raises:
        TriuneError: an answer failed; figures of the others would say little.
        ValueError: a count is below 1.
    """
    if answers < 1 or streams < 1:
        raise ValueError(f"answers is {answers} and streams is {streams}; expected at least 1 of each")
    client.generate(prompt)  # what a server does only once is not what is measured
    began = time.monotonic()
    with ThreadPoolExecutor(streams) as pool:
        try:
            found = list(pool.map(client.generate, [prompt] * answers))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return summarize(found, wall_s=time.monotonic() - began, streams=streams)


def summarize(found: Sequence[Completion], *, wall_s: float, streams: int) -> Figures:
    """The figures of these answers, of which there must be one at least."""
    output_tokens = sum(one.usage.output_tokens for one in found)
    first = [one.time_to_first_token_s or 0.0 for one in found]
    rates = [rate for one in found if (rate := one.tokens_per_second) is not None]
    return Figures(
        answers=len(found),
        streams=streams,
        input_tokens=sum(one.usage.input_tokens for one in found),
        output_tokens=output_tokens,
        wall_s=wall_s,
        output_tokens_per_s=output_tokens / max(wall_s, 1e-9),
        first_token_p50_s=percentile(first, 0.5),
        first_token_p95_s=percentile(first, 0.95),
        answer_p50_s=percentile([one.duration_s for one in found], 0.5),
        answer_p95_s=percentile([one.duration_s for one in found], 0.95),
        tokens_per_s_of_one_p50=percentile(rates, 0.5) if rates else None,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)]


def table(figures: Figures) -> str:
    """The figures for people, a line each."""
    alone = figures.tokens_per_s_of_one_p50
    rows = [
        ("answers", f"{figures.answers}, {figures.streams} at a time"),
        ("tokens", f"{figures.input_tokens} in, {figures.output_tokens} out, in {figures.wall_s:.2f} s"),
        ("output", f"{figures.output_tokens_per_s:.1f} tokens/s in all"),
        ("one stream", "-" if alone is None else f"{alone:.1f} tokens/s after its first token (median)"),
        ("first token", f"{figures.first_token_p50_s * 1000:.0f} ms (median), {figures.first_token_p95_s * 1000:.0f} ms (p95)"),
        ("whole answer", f"{figures.answer_p50_s:.2f} s (median), {figures.answer_p95_s:.2f} s (p95)"),
    ]
    return "\n".join(f"{name:<13} {value}" for name, value in rows)
