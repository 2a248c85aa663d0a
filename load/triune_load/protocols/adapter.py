"""What every protocol over HTTP has in common for the rest of the tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.answer import Event
from ..core.request import Request


class Garbled(Exception):
    """What came is not the protocol.

    Args:
        check: the check that it fails, e.g. `json` or `utf8`.
    """

    def __init__(self, check: str, message: str) -> None:
        super().__init__(message)
        self.check = check


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What differs between servers of one protocol."""

    model: str
    extra: Mapping[str, Any] = field(default_factory=dict)  # goes into every request as it is
    running_usage: bool = True  # OpenAI: ask for the count of tokens in every event (vLLM's extension)
    perf_metrics: bool = True  # KServe: ask for the times that the server took
    sampling: bool = True  # KServe: send temperature and seed


class HttpAdapter(Protocol):
    """A protocol over HTTP."""

    stops_with_mark: bool  # a stream ends with an event of its own

    def encode(self, request: Request) -> tuple[str, bytes]:
        """Path and JSON body of a request."""
        ...

    def decode(self, data: str) -> Event:
        """The event in the data of a server-sent event.

        Raises:
            Garbled: it is none of this protocol.
        """
        ...

    def decode_whole(self, data: str) -> Event:
        """The answer in a body that is not streamed.

        Raises:
            Garbled: it is none of this protocol.
        """
        ...


def to_body(fields: Mapping[str, Any]) -> bytes:
    """The JSON of a body; what is None is left out."""
    return json.dumps({k: v for k, v in fields.items() if v is not None}, ensure_ascii=False).encode()


def to_object(data: str) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        Garbled: it is none.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Garbled("json", f"an event is not JSON ({error}): {data[:120]!r}") from None
    if not isinstance(found, dict):
        raise Garbled("json", f"an event is not a JSON object: {data[:120]!r}")
    return found


def text_of(data: bytes) -> str:
    """The text of an event.

    Raises:
        Garbled: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Garbled("utf8", f"an event is not UTF-8 ({error.reason} at byte {error.start}): {data[:120]!r}") from None


def whole_text(value: Any, where: str) -> str:
    """A text from JSON.

    Raises:
        Garbled: it is not a text, or holds half a character.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Garbled("json", f"{where} is {value!r:.80}; expected a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Garbled("utf8", f"{where} holds half a character: {value!r:.80}") from None
    return value


def whole_number(value: Any, where: str) -> int | None:
    """A count from JSON, None if there is none.

    Raises:
        Garbled: it is no count.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Garbled("counts", f"{where} is {value!r:.80}; expected a count")
    return value


def error_text(found: Mapping[str, Any]) -> str | None:
    """The message of an error in an event, if it is one."""
    error = found.get("error")
    if error is None:
        return None
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)
