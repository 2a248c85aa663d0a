"""KServe over gRPC where API keys or TLS are asked for: calls pass as bytes, once their key has been seen."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from ..access_log import HEADER, Access, request_id
from ..bearer import CLIENT, sent_key
from ..gates import Sent
from ..tls import Tls
from . import messages
from .errors import FULL, words_of
from .shared import Shared

_SERVICE = "/inference.GRPCInferenceService/"
_OPEN = {f"{_SERVICE}{name}" for name in ("ServerLive", "ServerReady", "ModelReady")} | {"/grpc.health.v1.Health/Check"}
_GUARDED = {
    f"{_SERVICE}{name}"
    for name in ("ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "ModelInfer", "ModelStreamInfer")
}
_INFER, _STREAM = f"{_SERVICE}ModelInfer", f"{_SERVICE}ModelStreamInfer"
_PASSED = ("traceparent", "tracestate")
_STATUS = {grpc.StatusCode.OK: 200, grpc.StatusCode.UNAVAILABLE: 503, grpc.StatusCode.INVALID_ARGUMENT: 400}
_LEFT = 499


class GrpcFront:
    """Listens for gRPC and passes calls on."""

    def __init__(self, shared: Shared, upstream: str, tls: Tls | None = None, connection_s: int = 0) -> None:
        """
        Args:
            upstream: Triton's gRPC, as a channel's target.
            tls: None: it speaks plainly.
            connection_s: seconds after which a connection is replaced; what is under way on it ends there. 0: never.
        """
        self._shared, self._tls = shared, tls
        most = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(upstream, options=most)
        limits = shared.limits
        self._server = grpc.aio.server(
            handlers=[_Handlers(self)],
            maximum_concurrent_rpcs=limits.connections,
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.head_bytes),
                ("grpc.max_connection_idle_ms", int(1000 * limits.idle_s)),
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", int(1000 * limits.head_s)),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                *([("grpc.max_connection_age_ms", 1000 * connection_s)] if connection_s else []),
            ],
        )

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the port cannot be used.
        """
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None:
                self._server.add_insecure_port(where)
            else:
                self._server.add_secure_port(where, _credentials(self._tls))
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {where}: {error}") from None
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """End; calls under way get `grace_s` seconds."""
        await self._server.stop(grace_s)
        await self._channel.close()

    async def pass_on(
        self, method: str, calls: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        """One call: checked, sent on, its answers as they come."""
        sent = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        began = time.monotonic()
        peer = context.peer().rpartition(":")[0].partition(":")[2]
        access = Access(
            request_id=request_id(sent.get(HEADER.decode(), "").encode()), client=peer, method="gRPC", path=method, status=_LEFT
        )
        try:
            await self._check(method, sent, access, context)
            client = self._shared.keys.client(_bytes(sent), access.tenant, peer)
            metadata = [(name, sent[name]) for name in _PASSED if name in sent]
            # Triton makes a parameter of it, after those that a message has: the last one counts.
            metadata += [(CLIENT, client)] if self._shared.fair_share else []
            place: Sent | None = None
            async for message in calls if method in (_INFER, _STREAM) else _none():
                passes, place = self._enter(message, client)
                if passes:
                    calls = _again(message, calls)
                    break
                access.status = 503
                if method == _INFER:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, FULL)
                yield messages.stream_error(FULL)
            call = self._channel.stream_stream(method)(calls, metadata=metadata)
            try:
                async for message in call:
                    if access.first_chunk_s is None:
                        access.first_chunk_s = time.monotonic() - began
                        _tell(place, messages.first_text(message))
                    yield message
                access.status = 200
            except grpc.aio.AioRpcError as error:
                access.status = _STATUS.get(error.code(), 500)
                _tell(place, error.details() or "")
                await context.abort(error.code(), error.details() or "")
            finally:
                call.cancel()
                if place is not None:
                    place.ended()
        finally:
            self._shared.ended(access, began)

    def _enter(self, message: bytes, client: str) -> tuple[bool, Sent | None]:
        """Whether the first message of a call passes, and its place if the gates count it."""
        if messages.ends_another(message):
            return True, None
        place = self._shared.gates.enter(messages.first_text(message), client, messages.places(message))
        return place is not None, place

    async def _check(
        self, method: str, sent: dict[str, str], access: Access, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        access.tenant = self._shared.keys.tenant(sent_key(_bytes(sent)))
        if method in _OPEN:
            return
        if access.tenant is None:
            access.status = 401
            said = "Incorrect or missing API key: send metadata authorization: Bearer KEY."
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, said)
        if method not in _GUARDED:
            access.status = 403
            said = f"{method} is closed: models, shared memory, traces and logs are controlled by this server alone"
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, said)


def _tell(place: Sent | None, said: str) -> None:
    """Tell a place what the server said first: a model's name, or why it failed."""
    if place is not None:
        place.failed(*words_of(said))


def _bytes(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode("utf-8", "replace") for name, value in headers.items()}


async def _again(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Messages of which one has been taken already."""
    yield first
    async for message in others:
        yield message


async def _none() -> AsyncIterator[bytes]:
    return
    yield b""


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method, as a stream of bytes each way: on the wire a single message is a stream of one."""

    def __init__(self, front: GrpcFront) -> None:
        self._front = front

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method

        async def behave(calls: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in self._front.pass_on(method, calls, context):
                yield message

        return grpc.stream_stream_rpc_method_handler(behave)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """The certificate that is the newest when a client comes."""
    used = tls.loaded

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if used is tls.loaded:
            return None
        used = tls.loaded
        return grpc.ssl_server_certificate_configuration([used.pair])

    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([used.pair]), renewed)
