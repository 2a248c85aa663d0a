"""What of a request vLLM is asked, under its own names, and what it cannot do exactly as our own loop does: refused by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ...errors import RequestError
from ...request import Request, SamplingParams
from .protocol import Add

_COLDEST, _HOTTEST = 0.01, 2.0  # a lower temperature is taken for the first, a higher one refused
_MOST_PENALTY = 2.0
_SEEDS = (1 << 63) - 1  # of 64 bits it takes the lower ones: -1 would be no seed to it


def check(params: SamplingParams) -> None:
    """Refuse what vLLM does otherwise.

    Raises:
        RequestError: names the option, its value and what is served.
    """
    if params.temperature and not _COLDEST <= params.temperature <= _HOTTEST:
        served = f"0, or {_COLDEST:g} to {_HOTTEST:g}, is served by this engine"
        raise _otherwise("temperature", params.temperature, served)
    for name in ("presence_penalty", "frequency_penalty"):
        if abs(value := getattr(params, name)) > _MOST_PENALTY:
            raise _otherwise(name, value, f"-{_MOST_PENALTY:g} to {_MOST_PENALTY:g} is served by this engine")
    if params.max_drafts:
        raise RequestError(
            f"num_draft_tokens is {params.max_drafts}, but this engine checks no drafts",
            "omit num_draft_tokens and speculation",
            code="unsupported",
            param="num_draft_tokens",
        )


def order_of(request: Request, max_tokens: int, stops: Collection[int], *, guided: bool) -> Add:
    """The order for a request that was checked.

    Args:
        max_tokens: of its answer.
        stops: the tokens that end it, the model's own among them: vLLM knows none by itself.
        guided: whether it is told what the answer must look like.
    """
    p = request.params
    params: dict[str, Any] = {
        "max_tokens": max_tokens,
        "min_tokens": min(p.min_tokens, max_tokens),
        "temperature": p.temperature,
        "stop_token_ids": sorted(stops),
        "ignore_eos": True,
    }
    usual = SamplingParams()
    for name in ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        if (value := getattr(p, name)) != getattr(usual, name):
            params[name] = value
    if p.top_p not in (0, 1):
        params["top_p"] = p.top_p
    if p.temperature:
        params["seed"] = p.seed & _SEEDS
    if p.logit_bias:
        params["logit_bias"] = _sums(p.logit_bias)
    if p.bad_words:
        params["bad_words"] = p.bad_words
    if p.logprobs is not None:
        params["logprobs"] = p.logprobs
    if p.prompt_logprobs is not None:
        params["prompt_logprobs"] = p.prompt_logprobs
    return Add(
        key=request.key, prompt=request.prompt, params=params, extra=_extra(request, guided=guided),
        cache_salt=request.cache_salt,
    )  # fmt: skip


def _extra(request: Request, *, guided: bool) -> dict[str, Any] | None:
    """What `guides` must know to hold the answer to its form, or to end its thinking."""
    p = request.params
    if not guided and p.thinking_budget is None:
        return None
    return {
        "guide": p.guide if guided else None,
        "budget": p.thinking_budget,
        "thinking_open": request.thinking_open,
        "continues": request.continues,
        "stops": p.stop_token_ids,
        "tail": request.prompt[-64:],
    }


def _sums(biases: Collection[tuple[int, float]]) -> dict[str, float]:
    """Of a token that is named twice, both count."""
    found: dict[str, float] = {}
    for token, bias in biases:
        found[str(token)] = found.get(str(token), 0.0) + bias
    return found


def _otherwise(name: str, value: float, served: str) -> RequestError:
    return RequestError(f"{name} is {value:g}; {served}", "choose another", code="unsupported", param=name)
