"""Chat messages -> prompt text, with the model's own Jinja template in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import jinja2
import jinja2.meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import RequestCode, RequestError
from .tools import ToolFormat, ToolText, ToolUse, check_calls

Message = dict[str, Any]
_NOTHING: Mapping[str, Any] = {}
_HINT = 'send messages as JSON: [{"role": "user", "content": "..."}]'


class Ending(Enum):
    """How a rendered conversation ends."""

    NEXT_TURN = "the beginning of the assistant's next turn"
    LAST_TURN = "the end of the last message"
    SAME_TURN = "inside the last message, which the answer goes on with"


class ChatTemplate:
    """A model's chat template, compiled once."""

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        self._special_tokens = dict(special_tokens)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source) if source else None
        variables = jinja2.meta.find_undeclared_variables(environment.parse(source)) if source else set()
        self._variables = frozenset(variables)
        self._tools = ToolText(source or "", self._variables)

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools."""
        return self._tools.format

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
            RequestError: the model has no template, or its template refuses these messages.
        """
        if self._template is None:
            hint = "send the whole prompt as text_input"
            raise RequestError("this model has no chat template", hint, code="unsupported", param="messages")
        self._check_variables(variables)
        known: dict[str, Any] = {**variables, **self._special_tokens}
        if thinking is not None:
            known |= {"enable_thinking": thinking, "thinking": thinking}
        messages, listed = self._tools.prepare(messages, tools)
        if listed is not None:
            known["tools"] = listed
        try:
            turn = ending is Ending.NEXT_TURN
            rendered = self._template.render(messages=messages, add_generation_prompt=turn, **known)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise _refusal(f"the model's chat template refuses these messages: {error}") from error
        return _reopened(rendered, messages[-1]["content"]) if ending is Ending.SAME_TURN else rendered

    def _check_variables(self, variables: Mapping[str, Any]) -> None:
        if taken := sorted(variables.keys() & {"messages", "tools", "add_generation_prompt", *self._special_tokens}):
            said = f"chat_template_kwargs has {taken[0]}, which the template is told by other inputs"
            raise RequestError(said, f"omit {taken[0]}", code="conflict", param="chat_template_kwargs")
        if variables.get("documents") and "documents" not in self._variables:
            said = "documents are given, but this model's chat template does not read them"
            raise RequestError(said, "put them into a message", code="unsupported", param="documents")


def _reopened(rendered: str, content: str) -> str:
    """A conversation without what the template puts behind the text of its last message."""
    for last in (content, content.strip()):
        if (at := rendered.rfind(last)) >= 0:
            return rendered[: at + len(last)]
    said = "continue_final_message is true, but the model's chat template changes the last message"
    raise RequestError(said, "send the prompt as text_input", code="unsupported", param="continue_final_message")


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


def _to_json(value: object, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """JSON as templates expect it: not escaped for HTML, unlike Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
