"""Whether the log probabilities of a prompt's tokens can be had."""

from __future__ import annotations

from ..errors import RequestError
from ..options.values import MAX_SCORES
from ..request import Request


def check_scored(request: Request, wanted: int, *, scores: bool) -> None:
    """
    Args:
        wanted: of the best tokens at each position, how many.
        scores: see `Runner.scores`.

    Raises:
        RequestError: the engine gives none, or not as many.
    """
    if not scores:
        said = "prompt_logprobs is given, but this engine gives log probabilities of answers only"
        raise RequestError(said, "omit it", code="unsupported", param="prompt_logprobs")
    if (entries := len(request.prompt) * (1 + wanted)) > MAX_SCORES:
        raise RequestError(
            f"prompt_logprobs is {wanted} and the prompt has {len(request.prompt):,} tokens: {entries:,} log "
            f"probabilities, at most {MAX_SCORES:,} are given to one request",
            "ask for fewer, or send a shorter prompt",
            code="too_large",
            param="prompt_logprobs",
        )
