"""/v1/chat/completions: a conversation is answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.responses import Response

from triune_client import Chunk, Message, ToolCallDelta

from ..calls import Call, check, check_text, common_options, given, sent_fields
from ..errors import invalid, not_supported
from ..formats import tool_options
from ..logprobs import chat_logprobs, prompt_logprobs
from ..refusals import Unserved, refuse_unserved
from ..schemas import INT32, Generation, StreamOptions, Strict, Whole
from ..serving import Served
from ..shapes import Gathered, Json, Shape
from ..templates import TemplateArguments, template_options
from ..thinking import Thinking, thinking
from .endpoint import STREAMED, Endpoint

_FUNCTIONS = "it was replaced by tools and tool_choice, which are served"
_TEXT_ONLY = "this server reads and writes text only"

# inputs of the server -> the fields that say them, where the names differ
_SENT_AS = {
    "prompt": ("messages",),
    "max_tokens": ("max_completion_tokens", "max_tokens"),
    "enable_thinking": ("enable_thinking", "chat_template_kwargs", "reasoning_effort"),
    "thinking_budget": ("thinking_budget", "reasoning_effort"),
}
UNSERVED: Unserved = {
    "functions": (([],), _FUNCTIONS),
    "function_call": (("none",), _FUNCTIONS),
    "audio": ((), _TEXT_ONLY),
    "modalities": ((["text"],), _TEXT_ONLY),
    "store": ((False,), "this server keeps no answers"),
    "echo": ((False,), "a conversation is no text that an answer could follow; continue_final_message goes on with one"),
    "chat_template": ((), "the model's own template is used"),
    "verbosity": (("medium",), "the model knows no such setting; ask for it in a message"),
    "web_search_options": ((), "this server does not search the web"),
}


class ChatMessage(Strict):
    """A turn of a conversation. What clients send back of an earlier answer is welcome."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    reasoning_content: str | None = Field(None, description="earlier thinking; the model's template decides what of it counts")
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    # parts of an earlier answer that are no part of the conversation
    refusal: str | None = Field(None, description="no effect")
    annotations: list[Any] | None = Field(None, description="no effect")
    audio: Any = Field(None, description="no effect")
    function_call: Any = None


class ChatRequest(Generation):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[Whole, Field(ge=1, le=INT32)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = None
    # tools
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = Field(None, description="none, auto, required, or one function")
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call in an answer")
    # thinking
    reasoning_effort: Any = Field(None, description="none, minimal, low, medium, high, xhigh or max: how much to think")
    enable_thinking: bool | None = Field(None, description="an extension")
    thinking_budget: Annotated[Whole, Field(ge=0, le=INT32)] | None = Field(None, description="an extension: tokens")
    chat_template_kwargs: TemplateArguments | None = Field(None, description="an extension")
    include_reasoning: bool | None = Field(None, description="an extension; false: thinking is not part of the answer")
    # how the prompt is made
    add_generation_prompt: bool | None = Field(None, description="an extension; false: not the beginning of the next turn")
    continue_final_message: bool | None = Field(None, description="an extension: the answer goes on with the last message")
    split_special_tokens: bool | None = Field(None, description="an extension; false: messages may spell special tokens")
    documents: list[dict[str, Any]] | None = Field(None, description="an extension: for templates that read them")
    # no effect on the answer
    metadata: dict[str, Any] | None = Field(None, description="no effect")
    prompt_cache_key: str | None = Field(None, description="no effect")
    prompt_cache_retention: str | None = Field(None, description="no effect")
    safety_identifier: str | None = Field(None, description="no effect")
    prediction: dict[str, Any] | None = Field(None, description="no effect: it could only change how fast the answer comes")
    service_tier: str | None = Field(None, description="no effect")
    # refused unless they ask for what happens anyway
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: Any = None
    echo: Any = None
    chat_template: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None


async def chat(body: ChatRequest, serving: Served) -> Response:
    """Answers a conversation."""
    serving.check_model(body.model)
    made = calls(body, most=serving.settings.max_choices)
    shape = ChatShape(
        body.model, body.stream_options, logprobs=_top(body), scored=body.prompt_logprobs,
        as_ids=bool(body.return_tokens_as_token_ids), thoughts=body.include_reasoning is not False, request_id=body.request_id,
    )  # fmt: skip
    return serving.answer(made, shape, stream=bool(body.stream))


ENDPOINT = Endpoint(method="POST", path="/v1/chat/completions", answer=chat, responses=STREAMED, generates=True)


def calls(request: ChatRequest, *, most: int) -> list[Call]:
    """The call of a chat.

    Raises:
        ApiError: the request asks for what is not served, contradicts itself, or has more than `most` choices.
    """
    refuse_unserved(request, UNSERVED)
    check(request, prompts=1, most=most)
    options = common_options(request)
    if request.max_tokens is not None and request.max_completion_tokens not in (None, request.max_tokens):
        raise invalid("max_tokens and max_completion_tokens differ; send one of them.", "max_completion_tokens")
    options["max_tokens"] = request.max_completion_tokens or request.max_tokens
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("top_logprobs is only allowed when logprobs is true.", "top_logprobs")
    options["logprobs"] = _top(request)
    options["prompt_logprobs"] = request.prompt_logprobs
    options |= template_options(request)
    thought = _thinking(request)
    options |= thought.options
    options |= tool_options(request.tools, request.tool_choice, request.parallel_tool_calls)
    messages = chat_messages(request.messages)
    fields = sent_fields(request, _SENT_AS)
    choices = request.n or 1
    return [Call(messages=messages, options=given(options), choices=choices, fields=fields, wishes=thought.wishes)]


def chat_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """A conversation as the server takes it.

    Raises:
        ApiError: a message is not served, or not text; names it.
    """
    for index, message in enumerate(messages):
        _refuse_unserved_message(f"messages[{index}]", message)
    return tuple(_message(f"messages[{index}]", message) for index, message in enumerate(messages))


def _top(request: ChatRequest) -> int | None:
    """How many of the best tokens log probabilities are wanted of; None: of none at all."""
    return (request.top_logprobs or 0) if request.logprobs else None


def _refuse_unserved_message(where: str, message: ChatMessage) -> None:
    if message.function_call is not None or message.role == "function":
        raise not_supported(where, f"{where} is about a call of a function: {_FUNCTIONS}.")
    for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise not_supported(f"{where}.content[{index}]", f"{where}.content[{index}] is not text: {_TEXT_ONLY}.")


def _thinking(request: ChatRequest) -> Thinking:
    template = request.chat_template_kwargs
    switches = {
        "enable_thinking": request.enable_thinking,
        "chat_template_kwargs.enable_thinking": template.enable_thinking if template else None,
        "chat_template_kwargs.thinking": template.thinking if template else None,
    }
    budget = ("thinking_budget", request.thinking_budget)
    return thinking(effort=("reasoning_effort", request.reasoning_effort), switches=switches, budget=budget)


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
        check_text(f"{where}.{name}", value)
    if message.tool_calls:
        check_text(f"{where}.tool_calls", json.dumps(message.tool_calls, ensure_ascii=False))
        more["tool_calls"] = message.tool_calls
    return {"role": role, "content": text, **more}  # type: ignore[typeddict-item]  # templates read further keys


class ChatShape(Shape):
    """The answer's looks."""

    prefix, object, event_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        options: StreamOptions | None,
        *,
        logprobs: int | None,
        scored: int | None = None,
        as_ids: bool = False,
        thoughts: bool = True,
        request_id: str | None = None,
    ) -> None:
        """
        Args:
            logprobs: how many of the best tokens log probabilities are wanted of; None: of none at all.
            scored: the same for vLLM's `prompt_logprobs`.
            as_ids: tokens are shown by their numbers.
            thoughts: whether the thinking is part of the answer.
        """
        super().__init__(model, options, request_id)
        self._top, self._scored, self._as_ids, self._thoughts = logprobs, scored, as_ids, thoughts

    def _beside(self, first: Gathered) -> Json:
        top = self._scored
        return {} if top is None else {"prompt_logprobs": prompt_logprobs(first.prompt_logprobs, top)}

    def _logprobs(self, entries: Iterable[Mapping[str, Any]]) -> Json | None:
        return None if self._top is None else chat_logprobs(entries, self._top, as_ids=self._as_ids)

    def _choice(self, index: int, choice: Gathered) -> Json:
        content = "".join(choice.texts)
        message: Json = {"role": "assistant", "content": content, "refusal": None}
        if choice.tool_calls:
            message |= {"content": content or None, "tool_calls": [call.to_message() for call in choice.tool_calls]}
        if self._thoughts and (thoughts := "".join(choice.thoughts)):
            message["reasoning_content"] = thoughts
        logprobs = self._logprobs(choice.logprobs)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def _event_choices(self, index: int, chunk: Chunk, reason: str | None, *, first: bool) -> Iterator[Json]:
        if first:
            yield self._delta(index, {"role": "assistant", "content": ""})
        delta: Json = {}
        if chunk.reasoning and self._thoughts:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.text:
            delta["content"] = chunk.text
        if delta or chunk.logprobs:
            yield self._delta(index, delta, self._logprobs(chunk.logprobs))
        for piece in chunk.tool_call_deltas:  # an event each: clients take the first one's list of calls as it is
            yield self._delta(index, {"tool_calls": [_call_delta(piece)]})
        if reason:
            yield self._delta(index, {}, reason=reason)

    def _delta(self, index: int, delta: Json, logprobs: Json | None = None, reason: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _call_delta(piece: ToolCallDelta) -> Json:
    """A piece of a call; the first one has its name and id, and no arguments yet."""
    if piece.name:
        return {"index": piece.index, "id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}}
    return {"index": piece.index, "function": {"arguments": piece.arguments}}
