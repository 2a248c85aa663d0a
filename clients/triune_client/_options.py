"""What a caller may ask for: options of an answer and settings of a client, checked before anything is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NotRequired, TypedDict

from . import _structured
from ._declared import LISTS, SCALARS

_RANGES = {"INT32": (-(2**31), 2**31 - 1), "UINT64": (0, 2**64 - 1)}


class Message(TypedDict):
    """A turn of a conversation."""

    role: str  # "system", "user", "assistant" or "tool"
    content: str
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]  # of the assistant; `Completion.message` has them
    tool_call_id: NotRequired[str]  # of the role "tool": the call whose result this is
    reasoning_content: NotRequired[str]  # what the assistant thought; the model's template decides whether it reads that again


class OptionParams(TypedDict, total=False):
    """The keyword form of `Options`."""

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    n: int | None
    stop: str | Sequence[str] | None
    bad_words: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    logit_bias: Mapping[int, float] | None
    logprobs: int | None
    prompt_logprobs: int | None
    ignore_eos: bool | None
    enable_thinking: bool | None
    add_special_tokens: bool | None
    add_generation_prompt: bool | None
    continue_final_message: bool | None
    split_special_tokens: bool | None
    chat_template_kwargs: Mapping[str, Any] | None
    thinking_budget: int | None
    separate_reasoning: bool | None
    response_format: Any
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    cache_salt: str | None


class ClientParams(OptionParams, total=False):
    """What `with_options` takes: options of the answer and settings of the client."""

    model: str
    tokenizer: str
    timeout_s: float | None
    deadline_s: float | None
    max_retries: int
    headers: Mapping[str, str]


class CallParams(ClientParams, total=False):
    """What `generate`, `stream`, `chat` and `stream_chat` take besides the prompt."""

    request_id: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to choose tokens and when to stop. None leaves the choice to the server.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value does not fit its tensor, or is not finite.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None  # no end of the answer before this many
    temperature: float | None = None  # 0: greedy
    top_k: int | None = None  # 0: off
    top_p: float | None = None  # 1: off
    min_p: float | None = None  # 0: off
    repetition_penalty: float | None = None  # 1: off
    presence_penalty: float | None = None  # 0: off
    frequency_penalty: float | None = None  # 0: off
    seed: int | None = None  # same seed, same text
    n: int | None = None  # answers to the prompt, each a `sequence` of the stream; their seeds are derived from `seed`
    stop: str | Sequence[str] | None = None  # strings that end the answer; not part of it
    bad_words: str | Sequence[str] | None = None  # strings that must not appear
    stop_token_ids: Sequence[int] | None = None  # tokens that end the answer, besides the model's own
    logit_bias: Mapping[int, float] | None = None  # token id -> added to its logit
    logprobs: int | None = None  # 0: of the chosen tokens; k: and of the k best
    prompt_logprobs: int | None = None  # the same for the prompt's tokens; costs more than the prompt itself
    ignore_eos: bool | None = None
    enable_thinking: bool | None = None  # whether a model that can think does so before it answers; for chats
    add_special_tokens: bool | None = None  # whether the tokenizer puts what it has before a text; by default not in chats
    add_generation_prompt: bool | None = None  # False: a chat without the beginning of the assistant's next turn
    continue_final_message: bool | None = None  # the last message of a chat is open: the answer goes on with it
    split_special_tokens: bool | None = None  # True: what a chat's messages spell of special tokens is text
    chat_template_kwargs: Mapping[str, Any] | None = None  # what else the model's template is told
    thinking_budget: int | None = None  # most tokens of thinking; then the model must answer
    separate_reasoning: bool | None = None  # thinking apart from the answer; by default in chats, not after raw prompts
    response_format: Any = None  # a dataclass or pydantic model that the answer is parsed into, or OpenAI's object
    tools: Sequence[Mapping[str, Any]] | None = None  # functions that the model may call, as OpenAI's; for chats
    tool_choice: str | Mapping[str, Any] | None = None  # "auto", "none", "required", or OpenAI's object for one function
    parallel_tool_calls: bool | None = None  # False: at most one call in an answer
    cache_salt: str | None = None  # what the server has computed of prompts is shared with the same salt only

    def __post_init__(self) -> None:
        for name, datatype in SCALARS.items():
            _check_scalar(name, datatype, getattr(self, name))
        if self.n is not None and self.n < 1:
            raise ValueError(f"n is {self.n}; expected 1 or more answers")
        for name, datatype in LISTS.items():
            value = getattr(self, name)
            found = _strings(name, value) if datatype == "STRING" or value is None else check_token_ids(name, value)
            object.__setattr__(self, name, found)
        if self.response_format is not None:
            _structured.format_json(self.response_format)  # raises what is wrong with it
        if self.tools is not None:
            object.__setattr__(self, "tools", _tools(self.tools))
        if self.logit_bias is not None:
            bias = {_whole("logit_bias id", key): value for key, value in self.logit_bias.items()}
            for key, value in bias.items():
                _check_scalar(f"logit_bias[{key}]", "FP32", value)
            object.__setattr__(self, "logit_bias", bias)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client does with a call, and the options it sends when a call names none."""

    model: str = "triune"
    tokenizer: str = "tokenize"  # the server's model that turns prompts into tokens, for `tokenize` and `tokenize_chat`
    timeout_s: float | None = 120.0  # longest silence of the server; None: wait for ever
    deadline_s: float | None = None  # seconds for the whole answer; the server enforces it too
    max_retries: int = 2  # of what is safe to try again
    headers: Mapping[str, str] = field(default_factory=dict)  # sent besides the client's own, such as traceparent
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        for name in ("timeout_s", "deadline_s"):
            _check_scalar(name, "FP32", getattr(self, name))
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a positive number of seconds, or None")
        if _whole("max_retries", self.max_retries) < 0:
            raise ValueError(f"max_retries is {self.max_retries}; expected 0 or more")

    def derive(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with some changed, by the names of settings or of options.

        Raises:
            TypeError: a name is neither, or a value is of the wrong type.
            ValueError: a value is out of range.
        """
        of_options = {f.name for f in fields(Options)}
        of_settings = {f.name for f in fields(Settings)}
        if unknown := changes.keys() - of_options - of_settings:
            raise TypeError(_unknown(sorted(unknown)[0], of_options | of_settings - {"options"}))
        settings: dict[str, Any] = {name: value for name, value in changes.items() if name in of_settings}
        options = {name: value for name, value in changes.items() if name in of_options}
        if options:
            settings["options"] = replace(settings.get("options", self.options), **options)
        return replace(self, **settings) if settings else self


def _unknown(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"unknown option {name!r}; {hint}"


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; expected an int")
    return value


def check_token_ids(name: str, ids: Sequence[Any]) -> tuple[int, ...]:
    """Ids of tokens.

    Raises:
        TypeError: one is no int.
        ValueError: one does not fit.
    """
    for place, token in enumerate(ids):
        if not 0 <= _whole(f"{name}[{place}]", token) <= 2**31 - 1:
            raise ValueError(f"{name}[{place}] is {token}; expected 0 to {2**31 - 1}")
    return tuple(ids)


def _check_scalar(name: str, datatype: str, value: Any) -> None:
    if value is None:
        return
    if datatype == "STRING":
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}; expected a str")
        if not value:
            raise ValueError(f"{name} is empty; expected a text, or None")
    elif datatype == "BOOL":
        if not isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}; expected True or False")
    elif datatype == "FP32":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} is {value!r}; expected a number")
        if not math.isfinite(value) or abs(value) > 3.4e38:
            raise ValueError(f"{name} is {value!r}; expected a finite 32-bit number")
    else:
        low, high = _RANGES[datatype]
        if not low <= _whole(name, value) <= high:
            raise ValueError(f"{name} is {value}; expected {low} to {high}")


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    found = tuple(value)
    for tool in found:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise TypeError(f'tools holds {tool!r:.80}; expected {{"type": "function", "function": {{"name": ..., ...}}}}')
    return found


def _strings(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    found = (value,) if isinstance(value, str) else tuple(value)
    if bad := [item for item in found if not isinstance(item, str)]:
        raise TypeError(f"{name} holds {bad[0]!r}; expected strings")
    return found
