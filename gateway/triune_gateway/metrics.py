"""What the gateway counts, for Prometheus: requests, latencies, answers under way, tokens, and whose. A registry of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from .access_log import Access
from .usage import Counts

LEFT = 499  # in place of a status: the client went away before its answer was whole
OTHERS = "others"  # the tenant of all those that have no series of their own
_KINDS = ("prompt", "cached", "completion", "reasoning")  # of tokens: fields of `Counts`
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_TENANT_SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)  # few: there is a row of these for every tenant and model
_MAX_TENANTS, _MAX_MODELS = 100, 50  # with series of their own: what is counted once stays in memory and in Prometheus
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


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
        whose = ["tenant", "model_name"]
        self._tenants, self._models = _Few(_MAX_TENANTS), _Few(_MAX_MODELS)
        self._tenant_requests = Counter(
            "triune_openai_tenant_requests",
            "Requests of a tenant's API keys, by HTTP status",
            [*whose, "status"],
            registry=registry,
        )
        self._tenant_tokens = Counter(
            "triune_openai_tenant_tokens", "Tokens of a tenant, as in usage", [*whose, "kind"], registry=registry
        )
        self._tenant_seconds = Histogram(
            "triune_openai_tenant_request_seconds", "Seconds from a tenant's request to the end of its answer", whose,
            buckets=_TENANT_SECONDS, registry=registry,
        )  # fmt: skip
        self._tenant_first = Histogram(
            "triune_openai_tenant_first_chunk_seconds", "Seconds from a tenant's request to the first piece of its answer",
            whose, buckets=_TENANT_SECONDS, registry=registry,
        )  # fmt: skip
        for kind in _KINDS:
            self._tokens.labels(kind)
        for stream in ("true", "false"):
            self._open.labels(stream)

    def of_certificate(self, not_after: Callable[[], float]) -> None:
        """There is one, which may be renewed."""
        Gauge(
            "triune_tls_not_after_seconds", "When the TLS certificate ends, in seconds since the epoch", registry=self._registry
        ).set_function(not_after)

    def request(self, endpoint: str, status: int, seconds: float, trace: str | None = None) -> None:
        """A request has ended.

        Args:
            trace: the id of the trace that it belongs to, if any: shown as the exemplar of its latency.
        """
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds, _exemplar(trace))

    def of_tenant(self, access: Access, model: str) -> None:
        """A request for an answer has ended; those that are for none, or came with no key that is known, have no tenant.

        Args:
            model: the name that it is counted under.
        """
        if not access.tenant or not model:
            return
        whose = self._tenants.name(access.tenant), self._models.name(model)
        self._tenant_requests.labels(*whose, str(access.status)).inc()
        self._tenant_seconds.labels(*whose).observe(access.seconds)
        if access.first_chunk_s is not None:
            self._tenant_first.labels(*whose).observe(access.first_chunk_s)
        for kind in _KINDS:
            self._tenant_tokens.labels(*whose, kind).inc(getattr(access, f"{kind}_tokens") or 0)

    def first_chunk(self, seconds: float, trace: str | None = None) -> None:
        """The first piece of an answer has come."""
        self._first_chunk.observe(seconds, _exemplar(trace))

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

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text that Prometheus reads, and its media type: OpenMetrics, with exemplars, for who accepts that."""
        encode, form = choose_encoder(accept)
        return encode(self._registry), form


class _Few:
    """Names that come first have series of their own; all that come later share one."""

    def __init__(self, most: int) -> None:
        self._most, self._known = most, set[str]()

    def name(self, wanted: str) -> str:
        if wanted not in self._known:
            if len(self._known) >= self._most:
                return OTHERS
            self._known.add(wanted)
        return wanted


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The id of the trace that the header `traceparent` names, 32 hexadecimal digits; None where it names none."""
    found = _TRACEPARENT.fullmatch(dict(headers).get(b"traceparent", b""))
    return found[1].decode() if found and found[1].strip(b"0") else None


def _exemplar(trace: str | None) -> dict[str, str] | None:
    return {"trace_id": trace} if trace else None
