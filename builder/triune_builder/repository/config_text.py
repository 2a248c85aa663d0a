"""Reads config.pbtxt (protobuf text format) as nested dicts; every field is a list. Knows no field's meaning."""

from __future__ import annotations

import re
from typing import Any

from ..errors import BuildError

Message = dict[str, list[Any]]

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<word>[A-Za-z0-9_.+-]+)|(?P<mark>[{}\[\]:,;<>])"""
)


def parse(text: str, name: str) -> Message:
    """The message in `text`; strings and numbers stay strings, `name` is for errors.

    Raises:
        BuildError: not protobuf text.
    """
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise BuildError(f"{name}, line {line}: {text[at : at + 20]!r} is not protobuf text", "correct the config")
        if match.lastgroup:
            tokens.append(match.group())
        at = match.end()
    tokens.reverse()  # a stack: the next token is the last
    return _message(tokens, end=None, name=name)


def _message(tokens: list[str], end: str | None, name: str) -> Message:
    message: Message = {}
    while tokens and tokens[-1] != end:
        field = tokens.pop()
        if not re.fullmatch(r"\w+", field):
            raise BuildError(f"{name}: {field!r} where a field's name should be", "correct the config")
        if tokens and tokens[-1] == ":":
            tokens.pop()
        values = message.setdefault(field, [])
        if tokens and tokens[-1] == "[":
            tokens.pop()
            while tokens and tokens[-1] != "]":
                values.append(_value(tokens, name))
                if tokens and tokens[-1] == ",":
                    tokens.pop()
            _expect(tokens, "]", name)
        else:
            values.append(_value(tokens, name))
        if tokens and tokens[-1] in ",;":
            tokens.pop()
    if end is not None:
        _expect(tokens, end, name)
    return message


def _value(tokens: list[str], name: str) -> Any:
    token = tokens.pop() if tokens else ""
    if token in ("{", "<"):
        return _message(tokens, "}" if token == "{" else ">", name)
    if token[:1] in ("'", '"'):
        value = token[1:-1]
        while tokens and tokens[-1][:1] in ("'", '"'):  # neighbouring strings are one
            value += tokens.pop()[1:-1]
        return value
    if not re.fullmatch(r"[\w.+-]+", token):
        raise BuildError(f"{name}: {token or 'the end'!r} where a value should be", "correct the config")
    return token


def _expect(tokens: list[str], mark: str, name: str) -> None:
    found = tokens.pop() if tokens else "the end"
    if found != mark:
        raise BuildError(f"{name}: {found!r} where {mark!r} should be", "correct the config")
