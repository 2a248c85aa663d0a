"""What vLLM says of a request -> what is told of it. Knows the shape of vLLM's values, and imports nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .protocol import First, Logprob, Piece


def piece_of(key: int, output: Any, logprobs: int | None, prompt_logprobs: int | None, *, first: bool) -> Piece:
    """What a RequestOutput brings.

    Args:
        logprobs, prompt_logprobs: of how many of the best tokens they are wanted, if at all.
        first: it is the first of its request.
    """
    (made,) = output.outputs
    tokens = tuple(made.token_ids)
    found: tuple[Logprob, ...] = ()
    if logprobs is not None and made.logprobs:
        found = tuple(logprob_of(token, row, logprobs) for token, row in zip(tokens, made.logprobs, strict=True))
    return Piece(key, tokens, made.finish_reason, found, _first(output, prompt_logprobs) if first else None)


def logprob_of(token: int, row: Mapping[int, Any], wanted: int) -> Logprob:
    """Of a row of vLLM's, token id -> Logprob: the token's own, and those of the best."""
    best = sorted((one.rank, other, one.logprob) for other, one in row.items() if one.rank is not None and one.rank <= wanted)
    return row[token].logprob, tuple((other, value) for _, other, value in best)


def _first(output: Any, prompt_logprobs: int | None) -> First:
    times = output.metrics
    queued_s = max(0.0, times.scheduled_ts - times.queued_ts) if times is not None and times.scheduled_ts else 0.0
    scores: tuple[tuple[int, int, Logprob], ...] = ()
    if prompt_logprobs is not None and output.prompt_logprobs:
        pairs = list(zip(output.prompt_token_ids, output.prompt_logprobs, strict=True))[1:]
        scores = tuple((token, row[token].rank, logprob_of(token, row, prompt_logprobs)) for token, row in pairs)
    return First(queued_s, output.num_cached_tokens or 0, scores)
