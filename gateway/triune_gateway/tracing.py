"""Requests as spans of OpenTelemetry, in the trace of the caller, which goes on to the server behind.

The packages of OpenTelemetry are imported here alone, where it is asked for; without, the caller's headers pass as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .access_log import Access

HEADERS = ("traceparent", "tracestate")
SERVICE = "triune-gateway"
_SCOPE = "triune.trace"
_LONGEST = 1024


class Tracer:
    """What makes spans of the requests of one gateway."""

    def __init__(self, endpoint: str) -> None:
        """
        Args:
            endpoint: of a collector, for OTLP over HTTP, e.g. http://127.0.0.1:4318.

        Raises:
            ImportError: the SDK is not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: SERVICE}
        self._provider = TracerProvider(resource=Resource.create(name))  # what else OTEL_* says, the SDK reads
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
        self._tracer = self._provider.get_tracer("triune_gateway")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, access: Access, sent: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """The `with` block serves a request; what the server behind is to be told of its span.

        Args:
            sent: the caller's headers of `HEADERS`.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        span = self._tracer.start_span(
            f"{access.method} {access.path}", context=self._propagator.extract(sent), kind=SpanKind.SERVER,
            attributes={"http.request.method": access.method, "url.path": access.path},
        )  # fmt: skip
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        access.trace_id = f"{span.get_span_context().trace_id:032x}"
        try:
            yield carrier
        finally:
            if span.is_recording():
                span.set_attributes(_attributes(access))
                if access.status >= 500:
                    span.set_status(Status(StatusCode.ERROR, access.error))
            span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def sent_headers(scope: Any) -> dict[str, str]:
    """What a request says of its caller's trace."""
    known = {name.decode("latin-1"): value for name, value in scope["headers"]}
    found = {name: known[name] for name in HEADERS if name in known and len(known[name]) <= _LONGEST}
    return {name: value.decode("ascii") for name, value in found.items() if value.isascii()}


def pass_on(scope: Any, headers: Mapping[str, str]) -> None:
    """Have whoever answers the request of `scope` tell this to the server behind."""
    scope[_SCOPE] = headers


def passed_on(scope: Any) -> Mapping[str, str]:
    """What `pass_on` was given."""
    found: Mapping[str, str] = scope.get(_SCOPE, {})
    return found


def _attributes(access: Access) -> dict[str, Any]:
    known = {
        "http.response.status_code": access.status,
        "error.type": access.error,
        "gen_ai.request.model": access.model,
        "gen_ai.usage.input_tokens": access.prompt_tokens,
        "gen_ai.usage.output_tokens": access.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": access.cached_tokens,
        "gen_ai.response.finish_reasons": access.finish_reasons or None,
        "triune.request.id": access.request_id,
        "triune.request.stream": access.stream,
    }
    return {name: value for name, value in known.items() if value is not None}
