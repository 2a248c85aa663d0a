"""What the gateway counts, for Prometheus: requests, latencies, answers under way, tokens. A registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from .usage import Counts

CONTENT_TYPE = CONTENT_TYPE_LATEST
LEFT = 499  # in place of a status: the client went away before its answer was whole
_KINDS = ("prompt", "cached", "completion", "reasoning")  # of tokens: fields of `Counts`
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts of one gateway."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "triune_openai_requests",
            "Requests, by HTTP status; 499: the client left",
            ["endpoint", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "triune_openai_request_seconds", "Seconds from request to the end of its answer", ["endpoint"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first_chunk = Histogram(
            "triune_openai_first_chunk_seconds", "Seconds from request to the first piece of its answer",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter("triune_openai_tokens", "Tokens, as in usage", ["kind"], registry=registry)
        self._open = Gauge("triune_openai_open_answers", "Answers under way", ["stream"], registry=registry)
        for kind in _KINDS:
            self._tokens.labels(kind)
        for stream in ("true", "false"):
            self._open.labels(stream)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def first_chunk(self, seconds: float) -> None:
        """The first piece of an answer has come."""
        self._first_chunk.observe(seconds)

    @contextmanager
    def open_answer(self, *, stream: bool) -> Iterator[None]:
        """An answer is under way as long as the `with` block."""
        gauge = self._open.labels(str(stream).lower())
        with gauge.track_inprogress():
            yield

    def count_tokens(self, counts: Counts) -> None:
        """An answer has ended, or its client has left."""
        for kind in _KINDS:
            self._tokens.labels(kind).inc(getattr(counts, kind))

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
