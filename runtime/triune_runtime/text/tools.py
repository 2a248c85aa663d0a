"""Tools that a model may call: what clients send of them, and how each family of models writes its calls.

The answer's text holds the calls as the model wrote them, and its chunks name the format; who wants them apart parses it (our
clients do, and the OpenAI-compatible API). A template that does not know tools is helped with words of ours.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}\Z")
_HINT = 'send tools as JSON: [{"type": "function", "function": {"name": "...", "parameters": {...}}}]'


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """How a family writes calls: `begin` (`before` NAME `between` ARGUMENTS `after`), `separator` between calls, `end`."""

    name: str
    before: str
    between: str
    after: str
    begin: str = ""
    end: str = ""
    separator: str = "\n"
    markers: tuple[str, ...] = ()  # special tokens that are text in an answer

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """Calls, each a name and its arguments as JSON, as the model would have written them."""
        written = [f"{self.before}{name}{self.between}{arguments}{self.after}" for name, arguments in calls]
        return self.begin + self.separator.join(written) + self.end


_CALLS_BEGIN, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL_BEGIN, _SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_DEEPSEEK_MARKERS = (_CALLS_BEGIN, _CALLS_END, _CALL_BEGIN, _SEPARATOR, _CALL_END)
HERMES = ToolFormat(  # Hermes, Qwen; and models whose template knows no tools
    name="hermes",
    before='<tool_call>\n{"name": "',
    between='", "arguments": ',
    after="}\n</tool_call>",
    markers=("<tool_call>", "</tool_call>"),
)
DEEPSEEK_R1 = ToolFormat(  # DeepSeek R1 and V3
    name="deepseek_r1",
    begin=_CALLS_BEGIN,
    before=f"{_CALL_BEGIN}function{_SEPARATOR}",
    between="\n```json\n",
    after=f"\n```{_CALL_END}",
    end=_CALLS_END,
    markers=_DEEPSEEK_MARKERS,
)
DEEPSEEK_V31 = ToolFormat(
    name="deepseek_v31",
    begin=_CALLS_BEGIN,
    before=_CALL_BEGIN,
    between=_SEPARATOR,
    after=_CALL_END,
    end=_CALLS_END,
    separator="",
    markers=_DEEPSEEK_MARKERS,
)
LLAMA3 = ToolFormat(
    name="llama3",
    before='{"name": "',
    between='", "parameters": ',
    after="}",
    separator="; ",
    markers=("<|python_tag|>",),
)


def format_of(template: str | None) -> ToolFormat:
    """The format of the calls that a model with this chat template writes."""
    source = template or ""
    if _CALL_BEGIN in source or "tool▁call▁begin" in source:
        return DEEPSEEK_R1 if "```json" in source else DEEPSEEK_V31
    if "<tool_call>" not in source and ("<|python_tag|>" in source or ("ipython" in source and "<|eot_id|>" in source)):
        return LLAMA3
    return HERMES


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any]  # JSON schema of its arguments
    strict: bool
    raw: dict[str, Any]  # as the client sent it


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """The tools of one request and whether the model must use them."""

    tools: tuple[Tool, ...]
    required: bool = False
    parallel: bool = True  # several calls in one answer


def read_tools(tools: str, choice: str | None, parallel: bool | None) -> ToolUse | None:
    """The tools that a request may use; None where it has none, or its choice is "none".

    Args:
        tools: OpenAI's list, as JSON.
        choice: a word or OpenAI's object, as JSON.

    Raises:
        RequestError: names what is wrong.
    """
    listed = _json("tools", tools)
    if not isinstance(listed, list) or len(listed) > MAX_TOOLS:
        raise _refusal(f"tools is {_short(listed)}; a list of at most {MAX_TOOLS} is expected")
    found = tuple(_tool(f"tools[{index}]", raw) for index, raw in enumerate(listed))
    names = [tool.name for tool in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _refusal(f"tools has two functions named {twice}", hint="give each a name of its own")
    wanted, named = _choice(choice)
    if named is not None and named not in names:
        raise _refusal(
            f"tool_choice names {named!r}; tools has {', '.join(names) or 'none'}", "tool_choice", "name one of them"
        )
    if wanted == "required" and not found:
        raise RequestError("tool_choice is required but there are no tools", "send tools", code="no_tools", param="tool_choice")
    if not found or wanted == "none":
        return None
    if named is not None:
        return ToolUse(tools=tuple(t for t in found if t.name == named), required=True, parallel=False)
    return ToolUse(tools=found, required=wanted == "required", parallel=parallel is not False)


def check_calls(where: str, calls: object) -> None:
    """Refuse what is no list of calls in a message of the assistant.

    Raises:
        RequestError: names the message and what is wrong with it.
    """
    for index, call in enumerate(calls if isinstance(calls, list) else [calls]):
        place = f"{where}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _refusal(f"{place} is {_short(call)}; a call of a named function is expected", place)
        if not isinstance(function.get("arguments", ""), (str, dict)):
            shown = _short(function["arguments"])
            raise _refusal(f"{place} has arguments {shown}; JSON of an object is expected", place)


class ToolText:
    """Puts tools, calls and their results into the messages that one template renders."""

    def __init__(self, source: str, variables: frozenset[str]) -> None:
        """
        Args:
            variables: what the template reads.
        """
        self.format = format_of(source)
        self._shows_tools = "tools" in variables
        self._shows_calls = "tool_calls" in source
        self._null_content = bool(re.search(r"content['\"]?\]? is none", source))  # R1's: a message of calls has no content
        as_json = re.search(r"arguments['\"]?\]?\)? *\| *tojson", source)
        self._arguments_as_text = self.format in (DEEPSEEK_R1, DEEPSEEK_V31) and not as_json

    def prepare(self, messages: list[dict[str, Any]], use: ToolUse | None) -> tuple[list[dict[str, Any]], list[Any] | None]:
        """The messages as the template is to get them, and the tools that it is told of, if it reads any."""
        prepared = [self._message(message) for message in messages]
        if use is None:
            return prepared, None
        raw = [tool.raw for tool in use.tools]
        if self._shows_tools:
            return prepared, raw
        words = self._words(use)
        if prepared and prepared[0]["role"] == "system":
            first = prepared[0] | {"content": f"{prepared[0]['content']}\n\n{words}"}
            return [first, *prepared[1:]], None
        return [{"role": "system", "content": words}, *prepared], None

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        if calls := message.get("tool_calls"):
            if not self._shows_calls:
                written = self.format.write([(c["function"]["name"], _as_text(c["function"])) for c in calls])
                rest = {key: value for key, value in message.items() if key != "tool_calls"}
                return rest | {"content": "\n".join(filter(None, (message["content"], written)))}
            content = None if self._null_content and not message["content"] else message["content"]
            return message | {"content": content, "tool_calls": [self._call(call) for call in calls]}
        if message["role"] == "tool" and not self._shows_calls:
            return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
        return message

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        arguments: Any = _as_text(function)
        if not self._arguments_as_text:
            with contextlib.suppress(ValueError):  # a model's own malformed call goes back as it was
                arguments = json.loads(arguments)
        return {"type": "function"} | call | {"function": function | {"arguments": arguments}}

    def _words(self, use: ToolUse) -> str:
        example = self.format.write([("NAME", "ARGUMENTS")])
        listed = "\n".join(json.dumps(tool.raw["function"], ensure_ascii=False) for tool in use.tools)
        return (
            f"You can call these functions. Each line describes one, with the JSON schema of its arguments:\n{listed}\n\n"
            f"To call one, answer with exactly this, where ARGUMENTS is a JSON object:\n{example}"
        )


def _as_text(function: dict[str, Any]) -> str:
    arguments = function.get("arguments") or "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tool(where: str, raw: object) -> Tool:
    function = raw.get("function") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or raw.get("type") != "function" or not isinstance(function, dict):
        raise _refusal(f"{where} is {_short(raw)}; only tools of type function are served")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.match(name):
        raise _refusal(f"{where} has name {_short(name)}; 1 to 64 letters, digits, _, - and . are expected")
    if parameters is not None and not isinstance(parameters, dict):
        raise _refusal(f"{where} has parameters {_short(parameters)}; a JSON schema is expected")
    return Tool(name=name, parameters=parameters or {"type": "object"}, strict=bool(function.get("strict")), raw=raw)


def _choice(choice: str | None) -> tuple[str, str | None]:
    """What is wanted, and the one function that is, if one is named."""
    if choice in (None, "", "auto", "none", "required"):
        return choice or "auto", None
    parsed = _json("tool_choice", choice)
    if parsed in ("auto", "none", "required"):
        return str(parsed), None
    function = parsed.get("function") if isinstance(parsed, dict) and parsed.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        expected = 'none, auto, required or {"type": "function", "function": {"name": "..."}} is expected'
        raise _refusal(f"tool_choice is {_short(parsed)}; {expected}", "tool_choice", "correct or omit tool_choice")
    return "required", function["name"]


def _json(name: str, source: str) -> Any:
    try:
        return json.loads(source)
    except ValueError as error:
        raise _refusal(f"{name} is {_short(source)}, which is not JSON: {error}", name, f"correct or omit {name}") from None


def _refusal(message: str, param: str = "tools", hint: str = _HINT) -> RequestError:
    return RequestError(message, hint, code="invalid_value", param=param)


def _short(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."
