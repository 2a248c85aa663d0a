"""OpenAI's completions: a text is continued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, to_body, whole_text
from .openai_common import common_fields, decode_event, decode_whole


class CompletionsAdapter:
    """See `adapter.HttpAdapter`."""

    stops_with_mark = True

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: Request) -> tuple[str, bytes]:
        return "/v1/completions", to_body(common_fields(self._dialect, request) | {"prompt": request.text})

    def decode(self, data: str) -> Event:
        return decode_event(data, _fill)

    def decode_whole(self, data: str) -> Event:
        return decode_whole(data, _fill)


def _fill(event: Event, choice: Mapping[str, Any]) -> None:
    event.text = whole_text(choice.get("text"), "text")
