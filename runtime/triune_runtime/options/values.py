"""Reading single values of a request: what arrives as bytes, strings, numbers or bools becomes a checked Python value.

A reader has two ways. `read` takes a value as clients send it: a number may be a string. `check` takes one as it travels from
tokenize to generate, which anyone may send: of exactly its type, or refused. Both return the value and name it in errors.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import RequestCode, RequestError

Value = Any  # an element of a flattened tensor, or a JSON value
BIG = 2**31 - 1
UINT64 = (1 << 64) - 1
# Every token of an answer is compared with all of a request's words: what they may cost the others is bounded.
MAX_STOPS, MAX_WORDS, MAX_STOP_IDS = 64, 1024, 1024  # stop strings; bad words, or words with a bias; stop tokens
MAX_SCORES = 1 << 18  # log probabilities of a prompt, all at once in one response
MAX_WORD_BYTES = 256  # so a word has at most as many tokens


def refuse(name: str, value: object, expected: str, code: RequestCode = "invalid_value") -> RequestError:
    """The error of a value; `name` may be of a part of an input, such as `response_format.type`."""
    shown = repr(value)
    message = f"{name} is {shown if len(shown) <= 80 else shown[:77] + '...'}; {expected}"
    return RequestError(message, f"correct or omit {name}", code=code, param=input_of(name))


def input_of(name: str) -> str:
    """The input that a part of it belongs to."""
    return name.removeprefix("parameter ").partition(".")[0]


def at_most(name: str, values: Sized, most: int) -> None:
    if len(values) > most:
        expected = f"at most {most:,} are expected"
        hint = f"send fewer, or omit {name}"
        raise RequestError(f"{name} has {len(values):,} entries; {expected}", hint, code="too_large", param=name)


def text(name: str, value: Value) -> str:
    """A string that can be written as UTF-8; tensors carry bytes, JSON may carry half a surrogate pair."""
    if not isinstance(value, (str, bytes)):
        raise refuse(name, value, "a string is expected")
    try:
        return (value.encode("utf-8") if isinstance(value, str) else value).decode("utf-8")
    except UnicodeError as error:
        hint = f"send {name} as UTF-8 text"
        raise RequestError(f"{name} is not valid UTF-8: {error}", hint, code="invalid_value", param=input_of(name)) from None


class Reader(Protocol):
    """How the values of a name are read."""

    @property
    def annotation(self) -> str:
        """The type of what it gives, as Python writes it."""

    @property
    def values(self) -> str:
        """The values it takes, as the documentation says it."""

    def read(self, name: str, value: Value) -> Any: ...

    def check(self, name: str, value: Value) -> Any: ...


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number."""

    low: float
    high: float
    annotation = "float"

    @property
    def values(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"

    def read(self, name: str, value: Value) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
            raise refuse(name, value, f"{self.values} is expected")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise refuse(name, value, f"{self.values} is expected") from None
        if not (math.isfinite(number) and self.low <= number <= self.high):
            raise refuse(name, value, f"{self.values} is expected")
        return number

    def check(self, name: str, value: Value) -> float:
        return self.read(name, value if isinstance(value, int) else _exactly(float, name, value))


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: int
    high: int
    least: int | None = None  # what is below counts as this; only clients may send it
    annotation = "int"

    @property
    def values(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def read(self, name: str, value: Value) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
            raise refuse(name, value, f"{self.values} is expected")
        try:
            number = value if isinstance(value, int) else int(value) if isinstance(value, (str, bytes)) else _integer(value)
        except (ValueError, OverflowError):
            raise refuse(name, value, f"{self.values} is expected") from None
        if not self.low <= number <= self.high:
            raise refuse(name, value, f"{self.values} is expected")
        return number if self.least is None else max(number, self.least)

    def check(self, name: str, value: Value) -> int:
        strict = self if self.least is None else Whole(self.least, self.high)
        return strict.read(name, _exactly(int, name, value))


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    annotation = "bool"
    values = "true or false"

    def read(self, name: str, value: Value) -> bool:
        if isinstance(value, bool):
            return value
        given = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if given.lower() in ("true", "1", "false", "0"):
            return given.lower() in ("true", "1")
        raise refuse(name, value, "true or false is expected")

    def check(self, name: str, value: Value) -> bool:
        return bool(_exactly(bool, name, value))


@dataclass(frozen=True, slots=True)
class Text:
    """A string of UTF-8."""

    most_bytes: int | None = None
    may_be_empty: bool = True
    annotation = "str"

    @property
    def values(self) -> str:
        least = "" if self.may_be_empty else " that is not empty"
        return f"a string{least}" if self.most_bytes is None else f"a string of at most {self.most_bytes} bytes{least}"

    def read(self, name: str, value: Value) -> str:
        found = text(name, value)
        if not (found or self.may_be_empty):
            raise refuse(name, found, "a text that is not empty is expected")
        if self.most_bytes is not None and len(found.encode("utf-8")) > self.most_bytes:
            raise refuse(name, found, f"at most {self.most_bytes} bytes are expected")
        return found

    def check(self, name: str, value: Value) -> str:
        return self.read(name, _exactly(str, name, value))


@dataclass(frozen=True, slots=True)
class Many:
    """A list of values."""

    each: Reader
    most: int

    @property
    def annotation(self) -> str:
        return f"tuple[{self.each.annotation}, ...]"

    @property
    def values(self) -> str:
        return f"at most {self.most:,}, each {self.each.values}"

    def read(self, name: str, value: Value) -> tuple[Any, ...]:
        """As `Reader.read`; empty texts are left out: in a tensor they fill a place."""
        at_most(name, value, self.most)
        return tuple(found for one in value if (found := self.each.read(name, one)) != "")

    def check(self, name: str, value: Value) -> tuple[Any, ...]:
        at_most(name, _exactly(list, name, value), self.most)
        return tuple(self.each.check(name, one) for one in value)


@dataclass(frozen=True, slots=True)
class Bias:
    """A token's id and what is added to its logit."""

    annotation = "tuple[int, float]"
    values = "a pair of token id and bias"

    def read(self, name: str, value: Value) -> tuple[int, float]:
        return TOKEN_ID.read(name, value[0]), BIAS.read(name, value[1])

    def check(self, name: str, value: Value) -> tuple[int, float]:
        if not isinstance(value, list) or len(value) != 2:
            raise refuse(name, value, f"{self.values} is expected")
        return TOKEN_ID.check(name, value[0]), _SUMMED.check(name, value[1])


@dataclass(frozen=True, slots=True)
class Biases:
    """An object of biases by token id, which in JSON is a string. It travels as a list of pairs."""

    annotation = "dict[int, float]"
    values = "an object of token id: bias"

    def read(self, name: str, value: Value) -> dict[int, float]:
        if not isinstance(value, dict):
            raise refuse(name, value, f"{self.values} is expected")
        return dict(Bias().read(name, pair) for pair in value.items())

    check = read


FLAG = Flag()
WORD = Text(MAX_WORD_BYTES)  # to look for in an answer
TOKEN_ID = Whole(0, BIG)
BIAS = Real(-1000, 1000)
_SUMMED = Real(-1e6, 1e6)  # of several words that share a token


def _exactly(kind: type, name: str, value: Value) -> Value:
    """A value of `kind` and nothing that only looks like it: a number in a string, say."""
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise refuse(name, value, f"a value of type {kind.__name__} is expected")
    return value


def _integer(value: float) -> int:
    if not value.is_integer():
        raise ValueError(value)
    return int(value)
