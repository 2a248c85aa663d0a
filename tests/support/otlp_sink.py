"""A collector for tests: takes OTLP over HTTP, as protobuf or JSON, and keeps the spans."""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One that came; ids in hex, times in nanoseconds since the epoch."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    begin: int
    end: int
    attributes: dict[str, Any]


class Sink:
    """A collector on a port of its own, as long as the `with` block."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.spans: list[Span] = []
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                sink.take(
                    of_json(body) if "json" in self.headers["content-type"] else ExportTraceServiceRequest.FromString(body)
                )
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((host, 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Sink:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *how: object) -> None:
        self._server.shutdown()

    def take(self, message: ExportTraceServiceRequest) -> None:
        for of_service in message.resource_spans:
            service = next(a.value.string_value for a in of_service.resource.attributes if a.key == "service.name")
            for one in (span for scope in of_service.scope_spans for span in scope.spans):
                self.spans.append(Span(
                    service, one.name, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(),
                    one.start_time_unix_nano, one.end_time_unix_nano, {a.key: value(a.value) for a in one.attributes},
                ))  # fmt: skip

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    def wait(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, [(span.service, span.name, span.trace) for span in self.spans]
            time.sleep(0.05)


def of_json(body: bytes) -> ExportTraceServiceRequest:
    """As Triton sends it: OTLP's JSON has ids in hex, protobuf's in base64."""

    def protobufs(node: Any) -> Any:
        if isinstance(node, list):
            return [protobufs(one) for one in node]
        if not isinstance(node, dict):
            return node
        ids = ("traceId", "spanId", "parentSpanId")
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ids else protobufs(v) for k, v in node.items()}

    return json_format.ParseDict(protobufs(json.loads(body)), ExportTraceServiceRequest(), ignore_unknown_fields=True)


def value(raw: Any) -> Any:
    """A protobuf value as Python's."""
    kind = raw.WhichOneof("value")
    return [value(one) for one in raw.array_value.values] if kind == "array_value" else getattr(raw, kind)
