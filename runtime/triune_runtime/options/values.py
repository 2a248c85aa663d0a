"""Reading single values of a request: what arrives as bytes, strings, numbers or bools becomes a checked Python value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from typing import Any

from ..errors import RequestCode, RequestError

Value = Any  # an element of a flattened tensor, or a JSON value
UINT64 = (1 << 64) - 1
# Every token of an answer is compared with all of a request's words: what they may cost the others is bounded.
MAX_STOPS, MAX_WORDS, MAX_STOP_IDS = 64, 1024, 1024  # stop strings; bad words, or words with a bias; stop tokens
MAX_WORD_BYTES = 256  # so a word has at most as many tokens


def refuse(name: str, value: object, expected: str, code: RequestCode = "invalid_value") -> RequestError:
    """The error of a value; `name` may be of a part of an input, such as `response_format.type`."""
    shown = repr(value)
    message = f"{name} is {shown if len(shown) <= 80 else shown[:77] + '...'}; {expected}"
    return RequestError(message, f"correct or omit {name}", code=code, param=input_of(name))


def input_of(name: str) -> str:
    """The input that a part of it belongs to."""
    return name.removeprefix("parameter ").partition(".")[0]


def _number(name: str, value: Value, low: float, high: float) -> float:
    expected = f"a number from {low:g} to {high:g} is expected"
    if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
        raise refuse(name, value, expected)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise refuse(name, value, expected) from None
    if not (math.isfinite(number) and low <= number <= high):
        raise refuse(name, value, expected)
    return number


def real(low: float, high: float) -> Callable[[str, Value], float]:
    return lambda name, value: _number(name, value, low, high)


def whole(low: int, high: int) -> Callable[[str, Value], int]:
    def read(name: str, value: Value) -> int:
        expected = f"a whole number from {low} to {high} is expected"
        if isinstance(value, bool) or not isinstance(value, (int, float, str, bytes)):
            raise refuse(name, value, expected)
        try:
            number = value if isinstance(value, int) else int(value) if isinstance(value, (str, bytes)) else _exact(value)
        except (ValueError, OverflowError):
            raise refuse(name, value, expected) from None
        if not low <= number <= high:
            raise refuse(name, value, expected)
        return number

    return read


def _exact(value: float) -> int:
    if not value.is_integer():
        raise ValueError(value)
    return int(value)


def boolean(name: str, value: Value) -> bool:
    if isinstance(value, bool):
        return value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if text.lower() in ("true", "1", "false", "0"):
        return text.lower() in ("true", "1")
    raise refuse(name, value, "true or false is expected")


def at_most(name: str, values: Sized, most: int) -> None:
    if len(values) > most:
        expected = f"at most {most:,} are expected"
        hint = f"send fewer, or omit {name}"
        raise RequestError(f"{name} has {len(values):,} entries; {expected}", hint, code="too_large", param=name)


def word(name: str, value: Value) -> str:
    """A string to look for in an answer, of bounded length."""
    found = text(name, value)
    if len(found.encode("utf-8")) > MAX_WORD_BYTES:
        raise refuse(name, found, f"at most {MAX_WORD_BYTES} bytes are expected")
    return found


def text(name: str, value: Value) -> str:
    """A string that can be written as UTF-8; tensors carry bytes, JSON may carry half a surrogate pair."""
    if not isinstance(value, (str, bytes)):
        raise refuse(name, value, "a string is expected")
    try:
        return (value.encode("utf-8") if isinstance(value, str) else value).decode("utf-8")
    except UnicodeError as error:
        hint = f"send {name} as UTF-8 text"
        raise RequestError(f"{name} is not valid UTF-8: {error}", hint, code="invalid_value", param=input_of(name)) from None
