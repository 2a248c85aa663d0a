"""KServe's `infer` over HTTP: tensors in JSON, one whole answer."""

from __future__ import annotations

from ..core.answer import Event
from ..core.request import Request
from .adapter import Dialect, Garbled, error_text, to_body, to_object
from .kserve_tensors import event_of, inputs_of


class InferAdapter:
    """See `adapter.HttpAdapter`. Nothing is streamed."""

    stops_with_mark = False

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def encode(self, request: Request) -> tuple[str, bytes]:
        inputs = [
            {"name": name, "datatype": datatype, "shape": [1], "data": [value]}
            for name, datatype, value in inputs_of(self._dialect, request)
            if name != "stream"
        ]
        return f"/v2/models/{self._dialect.model}/infer", to_body({"id": request.identity, "inputs": inputs})

    def decode(self, data: str) -> Event:
        return self.decode_whole(data)

    def decode_whole(self, data: str) -> Event:
        found = to_object(data)
        if (error := error_text(found)) is not None:
            return Event(error=error)
        outputs = found.get("outputs")
        if not isinstance(outputs, list):
            raise Garbled("json", f"an answer has no outputs: {data[:120]!r}")
        return event_of({output["name"]: output.get("data") for output in outputs}, found.get("id"))
