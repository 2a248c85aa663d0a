"""Chat messages -> prompt text, with the model's own Jinja template in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import RequestCode, RequestError
from .tools import ToolFormat, ToolText, ToolUse, check_calls

Message = dict[str, Any]
_HINT = 'send messages as JSON: [{"role": "user", "content": "..."}]'


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
        self._tools = ToolText(source or "", frozenset(variables))

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls of tools."""
        return self._tools.format

    def render(self, messages: list[Message], *, thinking: bool | None = None, tools: ToolUse | None = None) -> str:
        """The prompt for the assistant's next turn.

        Args:
            thinking: whether the model should think first, under the two names that templates know it by (Qwen3's and
                DeepSeek-V3.1's); None tells them nothing. What a template does with earlier thinking, which messages carry
                as `reasoning_content`, is its own affair.
            tools: what the model may call. A template that knows no tools is helped with words in the system message.

        Raises:
            RequestError: the model has no template, or its template refuses these messages.
        """
        if self._template is None:
            hint = "send the whole prompt as text_input"
            raise RequestError("this model has no chat template", hint, code="unsupported", param="messages")
        known: dict[str, Any] = dict(self._special_tokens)
        if thinking is not None:
            known |= {"enable_thinking": thinking, "thinking": thinking}
        messages, listed = self._tools.prepare(messages, tools)
        if listed is not None:
            known["tools"] = listed
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **known)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise _refusal(f"the model's chat template refuses these messages: {error}") from error


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
