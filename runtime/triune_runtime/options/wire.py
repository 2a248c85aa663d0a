"""Everything a request asks for besides its prompt, as JSON between the steps. Reads no inputs: that is parsing.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RequestError
from ..request import SamplingParams
from .declared import FIELDS
from .values import refuse

_HINT = "send the JSON that tokenize gives"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything a request asks for besides its prompt."""

    params: SamplingParams = field(default_factory=SamplingParams)
    # written by `make contracts` from options/declared.py: begin
    enable_thinking: bool | None = None  # whether a model that can think does so before it answers; with `messages`
    n: int = 1  # answers to the prompt that come back
    best_of: int = 1  # answers that are made; the most likely `n` of them come back
    timeout_s: float | None = None  # seconds for the answer; what there is by then is the answer
    cancel: bool = False  # not a request: ends the one with the same id
    cache_salt: str = ""  # computed prompts are shared with the same salt only
    stream: bool = False  # the answer piece by piece
    separate_reasoning: bool | None = None  # thinking apart from the answer; absent: with `messages` only
    timed: bool = False  # say when things happened
    guide_input: str = ""  # the input that said so, for errors about it
    echo: bool = False  # the prompt comes before the answer
    batched: bool = False  # the client's tensors have a batch dimension, and so must the indices it gets
    vllm: bool = False  # log probabilities, finish reasons and several answers as vLLM gives them
    prompt_tokens: int | None = None  # of the prompts behind each other in one tensor, this one's; None: it has all
    request_id: str = ""  # where the client could only send it as a parameter (HTTP's generate)
    trace: tuple[str, ...] = ()  # where requests are traced: the caller's traceparent and tracestate
    tokenized_ns: tuple[int, ...] = ()  # there: when tokenize began and ended, since the epoch
    chat: bool = False  # there: the prompt was `messages`
    thinking_open: bool = False  # the prompt holds the opening marker; tokenize finds that out
    tool_format: str = ""  # how the answer's tool calls are written, if it may have any
    # written by `make contracts` from options/declared.py: end

    def to_json(self) -> str:
        """Compact JSON; defaults are left out."""
        return json.dumps({"params": _changed(self.params)} | _changed(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, source: str) -> Options:
        """What `to_json` wrote. Anyone may send it to `generate`: what is wrong inside the engine would end every request.

        Raises:
            RequestError: it cannot be read, or a value is not one that tokenize gives; names it.
        """
        try:
            given = json.loads(source)
        except RecursionError:
            raise RequestError("options are nested too deeply", _HINT, code="too_large", param="options") from None
        except ValueError as error:
            raise _unreadable(source, error) from None
        if not isinstance(given, dict) or not isinstance(given.get("params", {}), dict):
            raise _unreadable(source, "an object is expected, and in it one of the name params")
        params = given.pop("params", {})
        if unknown := [*_unknown(params, sampling=True), *_unknown(given, sampling=False)]:
            raise _unreadable(source, f"no option {unknown[0]!r} is known")
        options = cls(params=SamplingParams(**_checked(params)), **_checked(given))
        most, least = options.params.max_tokens, options.params.min_tokens
        if most is not None and least > most:
            raise refuse("min_tokens", least, f"at most max_tokens, which is {most}, is expected")
        if options.best_of < options.n or (options.stream and options.best_of > options.n):
            raise refuse("best_of", options.best_of, f"n, which is {options.n}, is expected; without stream, also more")
        return options


def _changed(value: SamplingParams | Options) -> dict[str, Any]:
    sampling = isinstance(value, SamplingParams)
    names = [one.name for one in FIELDS.values() if one.sampling == sampling]
    return {name: getattr(value, name) for name in names if getattr(value, name) != FIELDS[name].default}


def _unknown(given: Mapping[str, Any], *, sampling: bool) -> list[str]:
    return [name for name in given if name not in FIELDS or FIELDS[name].sampling != sampling]


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values by field, each read strictly; None where that may be."""
    return {
        name: None if value is None and FIELDS[name].default is None else FIELDS[name].reader.check(name, value)
        for name, value in given.items()
    }


def _unreadable(source: str, why: object) -> RequestError:
    return RequestError(f"options {source[:200]!r} cannot be read: {why}", _HINT, code="invalid_value", param="options")
