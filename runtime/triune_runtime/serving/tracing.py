"""Records as spans of OpenTelemetry, in the trace of the caller. Its packages are imported here alone, where it is asked for.

Names and attributes are those of the semantic conventions of generative AI, as far as these have any.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..errors import TriuneError
from ..options.wire import Options
from .records import Record, SequenceRecord
from .request_log import finish_reasons

ENDPOINT = "TRIUNE_OTLP"  # of the environment
SERVICE = "triune"
_CLOSE_S = 3.0  # for the last spans to go out


class Tracer:
    """Sends the spans of requests to a collector, from a thread of the SDK's."""

    def __init__(self, endpoint: str, model: str) -> None:
        """
        Args:
            endpoint: of a collector, for OTLP over HTTP, e.g. http://127.0.0.1:4318.
            model: what the spans call it.

        Raises:
            TriuneError: the SDK is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as missing:
            raise TriuneError(f"tracing needs packages: {missing}", 'pip install "triune[tracing]"') from None

        name = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: SERVICE}
        self._provider = TracerProvider(resource=Resource.create(name))  # what else OTEL_* says, the SDK reads
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
        self._tracer = self._provider.get_tracer("triune")
        self._propagator = TraceContextTextMapPropagator()
        self._model = model

    @classmethod
    def of_environment(cls, model: str) -> Tracer | None:
        """The one that the environment asks for; None where it asks for none."""
        endpoint = os.environ.get(ENDPOINT)
        return cls(endpoint, model) if endpoint else None

    def send(self, record: Record) -> None:
        """The spans of a request that has ended: the request's, and under it those of its steps."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        epoch_ns = time.time_ns() - time.monotonic_ns()

        def ns(seconds: float) -> int:
            return int(seconds * 1e9) + epoch_ns

        carrier = dict(zip(("traceparent", "tracestate"), record.options.trace, strict=False))
        begin, end = record.options.tokenized_ns or (ns(record.began), ns(record.began))
        operation = "chat" if record.options.chat else "text_completion"
        root = self._tracer.start_span(
            f"{operation} {self._model}", context=self._propagator.extract(carrier), kind=SpanKind.SERVER, start_time=begin,
            attributes={"gen_ai.operation.name": operation, **request_attributes(record.options, self._model)},
        )  # fmt: skip
        last = record.ended or time.monotonic()
        if root.is_recording():
            inside = set_span_in_context(root)
            if record.options.tokenized_ns:
                self._tracer.start_span("tokenize", context=inside, start_time=begin).end(end)
            for index, one in enumerate(record.sequences):
                for name, since, until, said in phases(one, len(record.sequences), index):
                    self._tracer.start_span(name, context=inside, start_time=ns(since), attributes=said).end(ns(until))
                    last = max(last, until)
            root.set_attributes(response_attributes(record, self._model))
            if record.error is not None:
                root.set_attribute("error.type", record.error.code)
                root.set_status(Status(StatusCode.ERROR, str(record.error.args[0])))
        root.end(ns(last))

    def close(self) -> None:
        """Send what is left; a collector that does not answer is not waited for."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


def phases(one: SequenceRecord, several: int, index: int) -> list[tuple[str, float, float, dict[str, Any]]]:
    """What an answer went through: each part's name, beginning, end and attributes."""
    found: list[tuple[str, float, float, dict[str, Any]]] = []
    which = {"triune.sequence": index} if several > 1 else {}
    if (times := one.times) is not None:
        scheduled, first, latest = times.scheduled, times.first, times.latest
        if scheduled is not None:
            found.append(("queue", times.arrived, scheduled, which))
            if first is not None:
                found.append(("prefill", scheduled, first, which | {"gen_ai.usage.cache_read.input_tokens": one.cached}))
        if first is not None and latest is not None:
            found.append(("decode", first, latest, which | {"gen_ai.usage.output_tokens": one.generated}))
    if one.sent_at is not None and one.seen_at is not None:
        found.append(("detokenize", one.sent_at, max(one.sent_at, one.seen_at), which | {"triune.chunks": one.chunks}))
    return found


def request_attributes(options: Options, model: str) -> Mapping[str, Any]:
    """What a request asks for."""
    params = options.params
    asked = {
        "gen_ai.provider.name": SERVICE,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p if params.top_p not in (0.0, 1.0) else None,
        "gen_ai.request.top_k": params.top_k or None,
        "gen_ai.request.frequency_penalty": params.frequency_penalty or None,
        "gen_ai.request.presence_penalty": params.presence_penalty or None,
        "gen_ai.request.seed": params.seed if params.temperature and params.seed < 1 << 63 else None,  # what OTLP has room for
        "gen_ai.request.choice.count": options.n if options.n > 1 else None,
        "triune.request.stream": options.stream,
    }
    return {name: value for name, value in asked.items() if value is not None}


def response_attributes(record: Record, model: str) -> Mapping[str, Any]:
    """What it got."""
    found: dict[str, Any] = {
        "gen_ai.response.model": model,
        "gen_ai.usage.input_tokens": len(record.prompt),
        "gen_ai.usage.output_tokens": sum(one.generated for one in record.sequences),
        "gen_ai.usage.cache_read.input_tokens": max((one.cached for one in record.sequences), default=0),
        "gen_ai.response.finish_reasons": finish_reasons(record.sequences),
    }
    return found | ({"gen_ai.response.id": record.id} if record.id else {})
