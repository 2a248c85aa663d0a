"""Where pieces of JSON end, without reading their values: brackets and strings only, so that any piece of a text will do."""

from __future__ import annotations

import json
import re
from typing import Literal

_MARKS = re.compile(r'[{}\[\]"\\<]')
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BARE = re.compile(r'[^\s,:"{}\[\]]+')  # a number or a word
CLOSERS = "}]>"  # what can end an object: a bracket, or the marker that cuts it off

State = Literal["open", "closed", "cut"]


class Unlike(Exception):
    """The text is not what it was read as, whatever follows it."""


class Incomplete(Exception):
    """The text may become what it is read as."""

    def __init__(self, until: str = "") -> None:
        """
        Args:
            until: nothing is decided before one of these characters comes; empty: any character may decide.
        """
        super().__init__()
        self.until = until


class Brackets:
    """Follows one object to its closing bracket, over as many pieces as it comes in."""

    def __init__(self, marker: str = "", *, depth: int = 0) -> None:
        """
        Args:
            marker: where this stands outside a string, the object ends unclosed; begins with "<". Empty: nothing does that.
            depth: brackets that are open already.
        """
        self._marker, self._depth = marker, depth
        self._in_string = self._escaped = False

    def scan(self, text: str, at: int = 0, *, last: bool = False) -> tuple[int, State]:
        """How far the object is certain to go, and how it stands there; go on from there with more text behind.

        Args:
            last: no more text will follow.
        """
        if self._escaped and at < len(text):
            self._escaped, at = False, at + 1
        for mark in _MARKS.finditer(text, at):
            place, character = mark.start(), mark.group()
            if place < at:
                continue  # escaped
            if self._in_string:
                if character == "\\":
                    at = place + 2
                elif character == '"':
                    self._in_string = False
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return place + 1, "closed"
            elif character == "<" and self._marker:
                if text.startswith(self._marker, place):
                    return place, "cut"
                if not last and self._marker.startswith(text[place:]):
                    return place, "open"
        self._escaped = self._escaped or at > len(text)
        return len(text), "open"


def after_space(text: str, at: int) -> int:
    """The place of the first character that is no white space."""
    return len(text) - len(text[at:].lstrip()) if text[at : at + 1].isspace() else at


def expect(text: str, at: int, wanted: str) -> int:
    """The place behind `wanted`, which stands at `at`.

    Raises:
        Unlike: something else does.
        Incomplete: the text ends in the middle of it.
    """
    if text.startswith(wanted, at):
        return at + len(wanted)
    if wanted.startswith(text[at:]):
        raise Incomplete
    raise Unlike


def read_string(text: str, at: int) -> tuple[str, int]:
    """The string that begins at `at`, and the place behind it. Raises as `expect`."""
    expect(text, at, '"')
    found = _STRING.match(text, at)
    if found is None:
        raise Incomplete('"')
    try:
        return str(json.loads(found.group(), strict=False)), found.end()
    except ValueError:
        raise Unlike from None


def skip_object(text: str, at: int, marker: str = "", *, depth: int = 0) -> int:
    """The place behind the object or list at `at`, in which `depth` brackets are open. Raises as `expect`."""
    stop, state = Brackets(marker, depth=depth).scan(text, at)
    if state == "open":
        raise Incomplete(CLOSERS)
    if state == "cut":
        raise Unlike
    return stop


def skip_value(text: str, at: int, marker: str = "") -> int:
    """The place behind the value at `at`. Raises as `expect`."""
    if text[at : at + 1] == '"':
        return read_string(text, at)[1]
    if text[at : at + 1] in ("{", "["):
        return skip_object(text, at, marker)
    found = _BARE.match(text, at)
    if found is None and at < len(text):
        raise Unlike
    if found is None or found.end() == len(text):
        raise Incomplete
    return found.end()
