"""Options as `generate` gets them. The tokenize step has read a client's own; `generate` also takes requests directly.

A value of a wrong type or range must be refused here: inside the engine it would end every request, not one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..constraints.guide import check_guide
from ..errors import RequestError
from .names import BIG, MOST_DRAFTS
from .values import (
    MAX_STOP_IDS,
    MAX_STOPS,
    MAX_WORD_BYTES,
    MAX_WORDS,
    UINT64,
    at_most,
    boolean,
    real,
    refuse,
    text,
    whole,
    word,
)
from .wire import Options

Read = Callable[[str, Any], Any]


def read_options(options_json: str) -> Options:
    """The options in the JSON that tokenize gives.

    Raises:
        RequestError: it cannot be read, or a value is not one that tokenize gives; names it.
    """
    try:
        options = Options.from_json(options_json)
    except RecursionError:
        hint = "send the JSON that tokenize gives"
        raise RequestError("options are nested too deeply", hint, code="too_large", param="options") from None
    _check(options, _OPTIONS)
    _check(options.params, _PARAMS)
    most, least = options.params.max_tokens, options.params.min_tokens
    if most is not None and least > most:
        raise refuse("min_tokens", least, f"at most max_tokens, which is {most}, is expected")
    if options.best_of < options.n or (options.stream and options.best_of > options.n):
        raise refuse("best_of", options.best_of, f"n, which is {options.n}, is expected; without stream, also more")
    return options


def _check(value: Any, readers: Mapping[str, Read]) -> None:
    for name, read in readers.items():
        read(name, getattr(value, name))


def _kind(kind: type, read: Read) -> Read:
    """`read`, and nothing that only looks like it: a number in a string, say."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            said = f"{name} is {value!r:.80}; a value of type {kind.__name__} is expected"
            raise RequestError(said, f"correct or omit {name}", code="invalid_value", param=name)
        return read(name, value)

    return check


def _real(low: float, high: float) -> Read:
    def check(name: str, value: Any) -> Any:
        return _kind(int if isinstance(value, int) else float, real(low, high))(name, value)

    return check


def _whole(low: int, high: int) -> Read:
    return _kind(int, whole(low, high))


def _optional(read: Read) -> Read:
    return lambda name, value: None if value is None else read(name, value)


def _each(read: Read, most: int = BIG) -> Read:
    def check(name: str, values: tuple[Any, ...]) -> list[Any]:
        at_most(name, values, most)
        return [read(name, value) for value in values]

    return _kind(tuple, check)


def _bias(name: str, value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) != 2:
        said = f"{name} has {value!r:.80}; a pair of token id and bias is expected"
        raise RequestError(said, f"correct or omit {name}", code="invalid_value", param=name)
    return _ID(name, value[0]), _real(-1e6, 1e6)(name, value[1])


_ID = _whole(0, BIG)
_BOOL = _kind(bool, boolean)
_OPTIONS: dict[str, Read] = {
    "stream": _BOOL,
    "timeout_s": _optional(_real(0, 86_400)),
    "batched": _BOOL,
    "echo": _BOOL,
    "cancel": _BOOL,
    "n": _whole(1, 128),
    "best_of": _whole(1, 128),
    "timed": _BOOL,
    "vllm": _BOOL,
    "prompt_tokens": _optional(_whole(0, BIG)),
    "request_id": _kind(str, text),
    "enable_thinking": _optional(_BOOL),
    "separate_reasoning": _optional(_BOOL),
    "thinking_open": _BOOL,
    "tool_format": _kind(str, text),
}
_PARAMS: dict[str, Read] = {
    "max_tokens": _optional(_whole(1, BIG)),
    "min_tokens": _whole(0, BIG),
    "temperature": _real(0, 1000),
    "top_k": _whole(0, BIG),
    "top_p": _real(0, 1),
    "min_p": _real(0, 1),
    "repetition_penalty": _real(0.01, 100),
    "presence_penalty": _real(-100, 100),
    "frequency_penalty": _real(-100, 100),
    "logit_bias": _each(_bias),
    "bad_words": _each(_each(_ID, MAX_WORD_BYTES), MAX_WORDS),
    "stop": _each(_kind(str, word), MAX_STOPS),
    "stop_token_ids": _each(_ID, MAX_STOP_IDS),
    "ignore_eos": _BOOL,
    "seed": _whole(0, UINT64),
    "logprobs": _optional(_whole(0, 20)),
    "max_drafts": _optional(_whole(0, MOST_DRAFTS)),
    "thinking_budget": _optional(_whole(0, BIG)),
    "guide": _optional(check_guide),
}
