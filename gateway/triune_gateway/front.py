"""What every request passes first: who may come in, how much they may send, how many at once. Counts how requests end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import access_log
from .access_log import Access, AccessLog
from .bearer import CLIENT, Keys, sent_key
from .errors import RETRY_AFTER_S, ApiError, full
from .gates import Gates
from .intake import Intake, stopping
from .metrics import LEFT, Metrics, trace_of
from .origins import foreign
from .routes import Routes
from .sending import error_response
from .settings import Settings
from .tracing import Tracer, pass_on, passed_on, sent_headers

GUARDED = ("/v1/", "/tokenize", "/detokenize")


class Front:
    """ASGI middleware around the whole application. Every response tells the request's id, which the log has too."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        metrics: Metrics,
        log: AccessLog,
        intake: Intake,
        tracer: Tracer | None,
        endpoints: Sequence[str],
        gates: Gates,
        routes: Routes,
        generating: Collection[str],
    ) -> None:
        """
        Args:
            endpoints: beginnings of the paths that are counted each by itself.
            generating: paths whose requests pass a gate, before they are read where there is one model.
        """
        self._log = log
        self._app, self._settings, self._metrics = app, settings, metrics
        self._endpoints = sorted(endpoints, key=len, reverse=True)  # the longest that fits counts
        self._keys = Keys(settings.api_keys)
        self._intake, self._tracer = intake, tracer
        self._gates, self._routes, self._generating = gates, routes, generating

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, access = time.monotonic(), access_log.begin(scope)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                access.status = message["status"]
                # Not added in place: whoever answers may hand over a list that it keeps.
                name = (access_log.HEADER, access.request_id.encode("latin-1"))
                leave = [(b"connection", b"close")] if self._intake.closed else []  # for another server
                message = {**message, "headers": [*message["headers"], name, *leave]}
            await send(message)

        if not scope["path"].startswith(GUARDED):
            await self._app(scope, receive, watched)
            return
        self._intake.open += 1
        sent = sent_headers(scope)
        access.trace_id = trace_of(scope["headers"])
        try:
            with self._tracer.span(access, sent) if self._tracer is not None else nullcontext(sent) as headers:
                pass_on(scope, headers)
                try:
                    await self._serve(scope, receive, watched)
                finally:
                    access.status = LEFT if scope.get("triune.left") else access.status
        finally:
            self._intake.open -= 1
            access.seconds = time.monotonic() - began
            self._count(access)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = access_log.of(scope)
        refusal = self._refusal(scope, access)
        if refusal is None:
            client = self._keys.client(dict(scope["headers"]), access.tenant, access.client)
            pass_on(scope, {**passed_on(scope), CLIENT: client})
            refusal = self._full(scope, access, client)
        if refusal is not None:
            access.error = refusal.code or refusal.kind
            await error_response(refusal, scope["path"])(scope, receive, send)
        else:
            await self._app(scope, _limited(receive, self._settings), send)

    def _count(self, access: Access) -> None:
        endpoint = next((known for known in self._endpoints if access.path.startswith(known)), "other")
        self._metrics.request(endpoint, access.status, access.seconds, access.trace_id)
        self._metrics.of_tenant(access, self._settings.counted_as(access.model))
        self._log.write(access)

    def _refusal(self, scope: Scope, access: Access) -> ApiError | None:
        headers = dict(scope["headers"])
        if (why := foreign(headers, self._settings.host, self._settings.allowed_origins)) is not None:
            return ApiError(403, why, code="foreign_page")
        access.tenant = self._keys.tenant(sent_key(headers))
        if scope["method"] != "OPTIONS" and access.tenant is None:
            message = "Incorrect or missing API key: send a header Authorization: Bearer KEY."
            return ApiError(401, message, kind="authentication_error", code="invalid_api_key")
        if self._intake.closed:
            return stopping()
        if self._intake.open > self._settings.max_requests:
            message = f"{self._settings.max_requests} requests are being served; try again later."
            return ApiError(429, message, kind="rate_limit_error", code="too_many_requests", retry_after_s=RETRY_AFTER_S)
        if (coding := headers.get(b"content-encoding", b"identity").decode("latin-1").strip()).lower() not in ("identity", ""):
            message = f"The header Content-Encoding is {coding!r}; a body without compression is expected."
            return ApiError(415, message, code="unsupported_encoding")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._settings.max_body_bytes:
            return ApiError(413, _too_large(self._settings.max_body_bytes))
        return None

    def _full(self, scope: Scope, access: Access, client: str) -> ApiError | None:
        """Why a request is refused without being read; one for one of several models is asked again when that is known."""
        if scope["method"] != "POST" or scope["path"] not in self._generating:
            return None
        ensembles = {route.ensemble for route in self._routes.known().values()}
        if len(ensembles) > 1 or not self._gates.refuses(min(ensembles), client):
            return None
        access.model = self._settings.model
        return full()


def _limited(receive: Receive, settings: Settings) -> Receive:
    """`receive`, refusing a body that takes too long, or turns out too long: its length may not have been said, or be a lie."""
    received, most = 0, settings.max_body_bytes
    until: float | None = asyncio.get_running_loop().time() + settings.body_timeout_s

    async def limited() -> Message:
        nonlocal received, until
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the request's body did not come within {settings.body_timeout_s:g} s.") from None
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, _too_large(most))
        if not message.get("more_body", False):
            until = None  # what follows is that the client leaves
        return message

    return limited


def _too_large(most: int) -> str:
    return f"the request's body is larger than {most:,} bytes, the most that this server takes."
