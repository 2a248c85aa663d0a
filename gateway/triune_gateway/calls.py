"""A checked request -> the calls to the server that answer it, one a prompt, each for all choices of its own. No I/O.

What a request leaves open is left to the server: the sampling that the model's publisher recommends, or greedy decoding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from triune_client import Message

from .errors import ApiError, invalid
from .formats import format_options, tool_options
from .refusals import refuse_unserved
from .schemas import ChatMessage, ChatRequest, CompletionRequest, Generation

COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
_LEAST_TOP_P = 1e-6  # only the best token; to the server 0 means "off"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A prompt or a conversation, how many choices it is to have, and the options they are made with."""

    options: dict[str, Any]  # what `AsyncClient.stream` takes
    choices: int = 1
    prompt: str = ""
    messages: tuple[Message, ...] | None = None  # None: continue `prompt` as it is


def chat_calls(request: ChatRequest, *, most: int) -> list[Call]:
    """The call of a chat.

    Raises:
        ApiError: the request asks for what is not served, contradicts itself, or has more than `most` choices.
    """
    _check(request, prompts=1, most=most)
    options = _options(request)
    if request.max_tokens is not None and request.max_completion_tokens not in (None, request.max_tokens):
        raise invalid("max_tokens and max_completion_tokens differ; send one of them.", "max_completion_tokens")
    options["max_tokens"] = request.max_completion_tokens or request.max_tokens
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("top_logprobs is only allowed when logprobs is true.", "top_logprobs")
    options["logprobs"] = (request.top_logprobs or 0) if request.logprobs else None
    options["enable_thinking"] = _thinking(request)
    options["thinking_budget"] = request.thinking_budget
    options |= tool_options(request)
    messages = tuple(_message(f"messages[{index}]", message) for index, message in enumerate(request.messages))
    return [Call(messages=messages, options=_given(options), choices=request.n or 1)]


def completion_calls(request: CompletionRequest, *, most: int) -> list[Call]:
    """The calls of a completion, in the order of its prompts. Raises as `chat_calls`."""
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    _check(request, prompts=len(prompts), most=most)
    options = _options(request) | {"max_tokens": request.max_tokens or COMPLETION_TOKENS, "logprobs": request.logprobs}
    for prompt in prompts:
        _check_text("prompt", prompt)
        if not prompt:
            raise invalid("prompt is empty; it must hold at least one character.", "prompt")
    return [Call(prompt=prompt, options=_given(options), choices=request.n or 1) for prompt in prompts]


def _check(request: Generation, *, prompts: int, most: int) -> None:
    refuse_unserved(request)
    if request.stream_options is not None and not request.stream:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if not prompts:
        raise invalid("prompt is an empty list; it must hold at least one string.", "prompt")
    if (choices := prompts * (request.n or 1)) > most:
        raise invalid(f"the request asks for {choices} answers; this server gives at most {most} to one.", "n")
    for name, words in (("stop", request.stop), ("bad_words", request.bad_words)):
        for word in [words] if isinstance(words, str) else words or []:
            _check_text(name, word)


def _options(request: Generation) -> dict[str, Any]:
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
        "logit_bias": None if bias is None else {int(token): value for token, value in bias.items()},
    }


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _thinking(request: ChatRequest) -> bool | None:
    template = request.chat_template_kwargs
    asked = {
        "reasoning_effort": False if request.reasoning_effort == "none" else None,
        "enable_thinking": request.enable_thinking,
        "chat_template_kwargs.enable_thinking": template.enable_thinking if template else None,
        "chat_template_kwargs.thinking": template.thinking if template else None,
    }
    said = {name: value for name, value in asked.items() if value is not None}
    if len(set(said.values())) > 1:
        raise invalid(f"{' and '.join(said)} contradict each other; send one of them.", next(iter(said)))
    return next(iter(said.values()), None)


def _message(where: str, message: ChatMessage) -> Message:
    content = message.content
    text = "".join(part["text"] for part in content) if isinstance(content, list) else content
    if text is None and message.tool_calls:
        text = ""
    if text is None:
        raise invalid(f"{where}.content is missing; a text is expected.", f"{where}.content")
    role = "system" if message.role == "developer" else message.role  # what the models' templates know it as
    names = ("name", "reasoning_content", "tool_call_id")
    more: dict[str, Any] = {name: value for name in names if (value := getattr(message, name)) is not None}
    for name, value in {"content": text, **more}.items():
        _check_text(f"{where}.{name}", value)
    if message.tool_calls:
        _check_text(f"{where}.tool_calls", json.dumps(message.tool_calls, ensure_ascii=False))
        more["tool_calls"] = message.tool_calls
    return {"role": role, "content": text, **more}  # type: ignore[typeddict-item]  # templates read further keys


def _check_text(name: str, text: str) -> None:
    """JSON can carry half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ApiError(400, f"{name} is not valid Unicode: {error.reason} at character {error.start}.", param=name) from None
