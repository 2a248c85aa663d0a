"""The form of an answer that calls tools, as a grammar: one call or several, each with arguments that fit its function."""

from __future__ import annotations

import json

from ..errors import RequestError
from ..text.tools import Tool, ToolFormat, ToolUse
from .guide import Guide, check_guide, quoted, with_settings
from .schemas import prepared

_MOST_CALLS = 8  # in one answer; without an end, a weak model calls for ever


def with_tools(use: ToolUse, form: ToolFormat, guide: Guide | None) -> Guide | None:
    """The guide of a request with tools: what it must call, or else what its answer must look like.

    Args:
        guide: what the request asks of an answer without calls.

    Raises:
        RequestError: the guide cannot be served beside tools, or all together is too large.
    """
    if not use.required and guide is None:
        return None
    rules = _rules(use, form)
    if use.required:
        rules.insert(0, "start: calls")
    elif guide is not None and guide[0] == "json_schema":
        rules[:0] = ["start: calls | answer", f"answer: %json {guide[1]}"]
    else:
        hint = "omit one of them, or send a JSON schema"
        raise RequestError("a regex, a choice or a grammar is given with tools", hint, code="conflict", param="tools")
    made = ("grammar", "\n".join(rules))
    check_guide("tools", made)
    return made


def _rules(use: ToolUse, form: ToolFormat) -> list[str]:
    several = f" ({quoted(form.separator)} call){{0,{_MOST_CALLS - 1}}}" if form.separator else f" call{{0,{_MOST_CALLS - 1}}}"
    parts = [
        quoted(form.begin) if form.begin else "",
        "call" + (several if use.parallel else ""),
        quoted(form.end) if form.end else "",
    ]
    names = [f"call{index}" for index in range(len(use.tools))]
    rules = [f"calls: {' '.join(filter(None, parts))}", f"call: {' | '.join(names)}"]
    return rules + [f"{name}: {_call(tool, form)}" for name, tool in zip(names, use.tools, strict=True)]


def _call(tool: Tool, form: ToolFormat) -> str:
    schema = with_settings(prepared(f"tools.{tool.name}.parameters", tool.parameters), lenient=not tool.strict)
    if "$ref" not in schema:
        schema = {"type": "object"} | schema
    return (
        f"{quoted(form.before + tool.name + form.between)} %json {json.dumps(schema, ensure_ascii=False)} {quoted(form.after)}"
    )
