"""A checked request -> the calls to the server that answer it: what all endpoints that generate text share. No I/O.

What a request leaves open is left to the server: the sampling that the model's publisher recommends, or greedy decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triune_client import Message

from .errors import ApiError, invalid
from .formats import format_options
from .schemas import Generation

_FORMATS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
_LEAST_TOP_P = 1e-6  # only the best token; to the server 0 means "off"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A prompt or a conversation, how many choices it is to have, and the options they are made with."""

    options: dict[str, Any]  # what `AsyncClient.stream` takes
    choices: int = 1
    prompt: str | tuple[int, ...] = ""
    messages: tuple[Message, ...] | None = None  # None: continue `prompt` as it is
    answers: bool = True  # False: only what is said of the prompt is wanted
    fields: Mapping[str, str] = field(default_factory=dict)  # what the server calls an input -> the field that the client sent
    wishes: frozenset[str] = frozenset()  # options that are left out for a model that cannot follow them


def check(request: Generation, *, prompts: int, most: int) -> None:
    """Check what a request says of its answers.

    Raises:
        ApiError: it contradicts itself, is not Unicode, or has more than `most` choices.
    """
    if request.stream_options is not None and not request.stream:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if not prompts:
        raise invalid("prompt is an empty list; it must hold at least one text or token id.", "prompt")
    if request.prompt_logprobs is not None and request.stream:
        raise invalid("prompt_logprobs is only served when stream is false.", "prompt_logprobs")
    if (choices := prompts * (request.n or 1)) > most:
        raise invalid(f"the request asks for {choices} answers; this server gives at most {most} to one.", "n")
    for name, words in (("stop", request.stop), ("bad_words", request.bad_words)):
        for word in [words] if isinstance(words, str) else words or []:
            check_text(name, word)
    check_text("cache_salt", request.cache_salt or "")


def common_options(request: Generation) -> dict[str, Any]:
    """The client's options for the fields that every endpoint has; None where nothing is asked.

    Raises:
        ApiError: two fields say what the answer looks like.
    """
    bias = request.logit_bias
    return format_options(request) | {
        "temperature": request.temperature,
        "top_p": None if request.top_p is None else max(request.top_p, _LEAST_TOP_P),
        "top_k": None if request.top_k is None else max(request.top_k, 0),
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "seed": None if request.seed is None else request.seed % 2**64,
        "n": request.n if (request.n or 1) > 1 else None,
        "min_tokens": request.min_tokens,
        "stop": request.stop,
        "bad_words": request.bad_words,
        "ignore_eos": request.ignore_eos,
        "stop_token_ids": request.stop_token_ids,
        "add_special_tokens": request.add_special_tokens,
        "cache_salt": request.cache_salt,
        "logit_bias": None if bias is None else {int(token): value for token, value in bias.items()},
    }


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that are asked for."""
    return {name: value for name, value in options.items() if value is not None}


def sent_fields(request: Generation, renamed: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What the server calls an input -> the field that the client sent for it; for `Call.fields`.

    Args:
        renamed: inputs -> the fields that may have said them, where the names differ.
    """
    sent = [name for name in request.model_fields_set if getattr(request, name) is not None]
    names = {"response_format": _FORMATS, **renamed}
    firsts = {name: next((one for one in fields if one in sent), None) for name, fields in names.items()}
    return dict(zip(sent, sent, strict=True)) | {name: one for name, one in firsts.items() if one is not None}


def check_text(name: str, text: str) -> None:
    """JSON can carry half a surrogate pair, UTF-8 cannot.

    Raises:
        ApiError: `text` holds one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, f"{name} is not valid Unicode: {error.reason} at character {error.start}.", param=name) from None
