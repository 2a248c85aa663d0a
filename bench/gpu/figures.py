"""The same batches and the same figures for whoever computes them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """A batch of equal requests, all sent at once."""

    seconds: float
    tokens: int  # of answers
    first_s: list[float]  # until the first token of each
    step_s: list[float]  # of steps in which every sequence got a token


def measure_batches(
    batch: Callable[[int, int, int], Run],
    counts: Iterable[int],
    repetitions: int,
    *,
    prompt: int = 512,
    decode_only: bool = False,
) -> dict[str, Any]:
    """Answers of 128 tokens to prompts of equal length, by how many there are at once, and a prompt of 2,048 tokens.

    Args:
        batch: of a number of requests, tokens of each prompt and tokens of each answer.
        prompt: tokens of each prompt.
        decode_only: without the prompt of 2,048 tokens.
    """
    found: dict[str, Any] = {"decode": {}}
    for count in counts:
        batch(count, prompt, 16)
        found["decode"][count] = _figures(count, [batch(count, prompt, 128) for _ in range(repetitions)])
    if decode_only:
        return found
    batch(1, 2048, 1)
    found["prefill_2048_ms"] = [round(1e3 * batch(1, 2048, 1).seconds, 2) for _ in range(4 * repetitions)]
    return found


def _figures(count: int, runs: Sequence[Run]) -> dict[str, Any]:
    steps = [step for run in runs for step in run.step_s]
    return {
        "tokens_per_s": [round(run.tokens / run.seconds, 1) for run in runs],
        "first_token_ms": round(1e3 * statistics.median(s for run in runs for s in run.first_s), 2),
        "step_ms": round(1e3 * statistics.median(steps), 3) if steps else None,
        "decode_tokens_per_s": round(count / statistics.mean(steps), 1) if steps else None,
    }
