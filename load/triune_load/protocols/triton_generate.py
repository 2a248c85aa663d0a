"""Triton's `generate` and `generate_stream`: inputs are keys of a JSON object, answers are objects or events of them."""

from __future__ import annotations

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, error_text, to_body, to_object
from .kserve_tensors import event_of, inputs_of


class GenerateAdapter:
    """See `adapter.HttpAdapter`. A stream here ends with its last event: there is no mark."""

    stops_with_mark = False

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: Request) -> tuple[str, bytes]:
        fields = {"id": request.identity} | {name: value for name, _, value in inputs_of(self._dialect, request)}
        verb = "generate_stream" if request.stream else "generate"
        return f"/v2/models/{self._dialect.model}/{verb}", to_body(fields)

    def decode(self, data: str) -> Event:
        found = to_object(data)
        if (error := error_text(found)) is not None:
            return Event(error=error)
        return event_of(found, found.get("id"))

    def decode_whole(self, data: str) -> Event:
        return self.decode(data)
