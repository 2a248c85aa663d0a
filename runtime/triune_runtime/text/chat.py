"""Chat messages -> prompt text, with the model's own Jinja templates, as transformers renders them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from ..errors import ManifestError, RequestCode, RequestError
from . import renderer
from .renderer import OverLimit, Renderer, TemplateFailed
from .tools import ToolFormat, ToolText, ToolUse, check_calls

Message = dict[str, Any]
_NOTHING: Mapping[str, Any] = {}
_HINT = 'send messages as JSON: [{"role": "user", "content": "..."}]'
_REASONINGS = ("reasoning_content", "thinking", "reasoning")  # names of a message's thinking; templates read the first
_REASONING = frozenset(_REASONINGS)
_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class Ending(Enum):
    """How a rendered conversation ends."""

    NEXT_TURN = "the beginning of the assistant's next turn"
    LAST_TURN = "the end of the last message"
    SAME_TURN = "inside the last message, which the answer goes on with"


class ChatTemplate:
    """A model's chat templates, compiled once: one for all chats, or one for those with tools besides."""

    def __init__(
        self,
        source: str | None,
        special_tokens: Mapping[str, str],
        tool_source: str | None = None,
        *,
        where: Renderer | None = None,
    ) -> None:
        """
        Args:
            special_tokens: name -> text, as variables of the template.
            tool_source: used in place of `source` where there are tools.
            where: it is rendered; by default in this process's own.

        Raises:
            ManifestError: a template does not compile; names the line.
        """
        self._special_tokens = dict(special_tokens)
        self._renderer = where or renderer.shared()
        self._plain = self._compile("chat template", source)
        self._with_tools = self._compile("chat template tool_use", tool_source) if tool_source else self._plain

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools."""
        return self._with_tools[1].format

    def render(
        self,
        messages: list[Message],
        *,
        thinking: bool | None = None,
        tools: ToolUse | None = None,
        ending: Ending = Ending.NEXT_TURN,
        variables: Mapping[str, Any] = _NOTHING,
    ) -> str:
        """The prompt for the assistant's next turn.

        Args:
            thinking: whether the model should think first, under the two names that templates know it by (Qwen3's and
                DeepSeek-V3.1's); None tells them nothing. What a template does with earlier thinking, which messages carry
                as `reasoning_content`, is its own affair.
            tools: what the model may call. A template that knows no tools is helped with words in the system message.
            ending: how the prompt ends.
            variables: what else the template is told; nothing that is told it anyway.

        Raises:
            RequestError: the model has no template, its template refuses these messages or takes too much, or the last of
                them cannot be continued.
            Overloaded: there is no process that renders.
        """
        source, tool_text, read = self._plain if tools is None else self._with_tools
        if source is None:
            hint = "send the whole prompt as text_input"
            raise RequestError("this model has no chat template", hint, code="unsupported", param="messages")
        self._check_variables(variables, read)
        known: dict[str, Any] = {"documents": None, **variables, **self._special_tokens}
        if thinking is not None:
            known |= {"enable_thinking": thinking, "thinking": thinking}
        messages, listed = tool_text.prepare(messages, tools)
        messages = [message if _REASONING.isdisjoint(message) else _with_reasoning(message) for message in messages]
        known |= {"messages": messages, "tools": listed, "add_generation_prompt": ending is Ending.NEXT_TURN}
        if ending is not Ending.SAME_TURN:
            return self._rendered(source, known)
        final = messages[-1].get("content")
        if not isinstance(final, str) or not final.strip():
            said = "continue_final_message is true, but the last message has no text"
            raise RequestError(
                said, "send a last message that has a text", code="invalid_value", param="continue_final_message"
            )
        tagged = [*messages[:-1], messages[-1] | {"content": final + _TAG}]
        return _up_to_tag(self._rendered(source, known | {"messages": tagged}), final)

    def _check_variables(self, variables: Mapping[str, Any], read: frozenset[str]) -> None:
        if taken := sorted(variables.keys() & {"messages", "tools", "add_generation_prompt", *self._special_tokens}):
            said = f"chat_template_kwargs has {taken[0]}, which the template is told by other inputs"
            raise RequestError(said, f"omit {taken[0]}", code="conflict", param="chat_template_kwargs")
        if variables.get("documents") and "documents" not in read:
            said = "documents are given, but this model's chat template does not read them"
            raise RequestError(said, "put them into a message", code="unsupported", param="documents")

    def _rendered(self, source: str, known: dict[str, Any]) -> str:
        try:
            return self._renderer.render(source, known)
        except OverLimit as error:
            said = f"the model's chat template {error} for these messages"
            raise RequestError(said, "send fewer or shorter messages", code="too_large", param="messages") from None
        except TemplateFailed as error:  # whatever it does, it is these messages that it does not take
            raise _refusal(f"the model's chat template refuses these messages: {error}") from error

    def _compile(self, name: str, source: str | None) -> tuple[str | None, ToolText, frozenset[str]]:
        if source is None:
            return None, ToolText("", frozenset()), frozenset()
        try:
            variables = self._renderer.compile(source)
        except (TemplateFailed, OverLimit) as error:
            line = f"line {error.line}: " if isinstance(error, TemplateFailed) and error.line is not None else ""
            said = f"the {name} does not compile: {line}{error}"
            raise ManifestError(said, "correct the template, or take the model's newest one") from error
        return source, ToolText(source, variables), variables


def _with_reasoning(message: Message) -> Message:
    """With its thinking, under whichever name it came, under the names that templates read."""
    thinking = next((message[name] for name in _REASONINGS if message.get(name) is not None), None)
    return message if thinking is None else {"thinking": thinking, **message, "reasoning_content": thinking}


def _up_to_tag(text: str, final: str) -> str:
    """A text rendered with the tag behind its last message, without the tag and what follows it."""
    if _TAG.strip() not in text or final.strip() not in text:
        said = "continue_final_message is true, but the model's chat template changes the last message"
        raise RequestError(said, "send the prompt as text_input", code="unsupported", param="continue_final_message")
    at = text.rindex(_TAG.strip())
    return text[:at] if text.startswith(_TAG, at) else text[:at].rstrip()  # else the template trims messages


def parse_messages(text: str) -> list[Message]:
    """The messages in a JSON text; content parts of type "text" are joined.

    Raises:
        RequestError: no JSON, or not a list of messages; names the message and what is wrong with it.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise _refusal(f"messages is not JSON: {error}") from None
    if not isinstance(raw, list) or not raw:
        raise _refusal(f"messages must be a list of at least one message, not {_short(raw)}")
    return [_message(i, m) for i, m in enumerate(raw)]


def _message(index: int, raw: object) -> Message:
    where = f"messages[{index}]"
    if not isinstance(raw, dict):
        raise _refusal(f"{where} must be an object, not {_short(raw)}", where)
    role = raw.get("role")
    if not isinstance(role, str) or not role:
        raise _refusal(f"{where} has role {_short(role)}; a name such as user, assistant or system is needed", where)
    content = raw.get("content")
    if raw.get("tool_calls"):
        check_calls(where, raw["tool_calls"])
    if isinstance(content, list):
        content = "".join(_part(f"{where}.content[{i}]", part) for i, part in enumerate(content))
    if content is None and raw.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise _refusal(f"{where} has content {_short(content)}; a text is needed", where)
    return {**raw, "content": content}


def _part(where: str, raw: object) -> str:
    if isinstance(raw, dict) and raw.get("type") == "text" and isinstance(raw.get("text"), str):
        return str(raw["text"])
    raise _refusal(f"{where} is {_short(raw)}; only parts of type text are served", where, "unsupported")


def _refusal(message: str, where: str = "messages", code: RequestCode = "invalid_value") -> RequestError:
    return RequestError(message, _HINT, code=code, param=where)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
