"""gRPC for many streams at once: one stream for each request, several channels. Needs the extra `grpc`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..core.answer import Answer, Failure
from ..core.failures import of_code
from ..core.request import Request
from ..errors import LoadError
from ..protocols.adapter import Dialect, Garbled
from ..protocols.kserve_grpc import GrpcAdapter
from ..trust import PUBLIC, Trust

_CHANNELS = 4  # connections; a server handles a connection's streams one after the other
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a load test tells what happened
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcTransport:
    """Sends requests to one model of one server.

    Args:
        url: host and port; grpcs:// before it for TLS.
        streams: ModelStreamInfer, else ModelInfer.
        headers: sent as metadata with every request.
        trust: of a server that speaks TLS.
        now: the run's clock, in seconds.

    Raises:
        LoadError: the URL is none, or the extra is not installed.
    """

    def __init__(
        self, url: str, dialect: Dialect, *, streams: bool, headers: Mapping[str, str] | None = None,
        trust: Trust = PUBLIC, now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        try:
            import grpc
            import grpc.aio
            from tritonclient.grpc import service_pb2, service_pb2_grpc
        except ImportError:
            raise LoadError("gRPC is not installed", 'pip install "triune-load[grpc]"') from None
        scheme, _, address = url.rpartition("://")
        if scheme not in ("", "grpc", "grpcs", "http") or not re.search(r":\d+$", address):
            raise LoadError(f"url is {url!r}; expected something like 127.0.0.1:8001")
        self._grpc, self._now, self._streams = grpc, now, streams
        self._adapter = GrpcAdapter(dialect, service_pb2, streams=streams)
        if scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials(trust.roots)
            name = [("grpc.ssl_target_name_override", trust.server_name)] if trust.server_name else []
            options = [*_OPTIONS, *name]
            self._channels = [grpc.aio.secure_channel(address, credentials, options=options) for _ in range(_CHANNELS)]
        else:
            self._channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(_CHANNELS)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        self._turn = 0

    def prepare(self, request: Request) -> Any:
        """The message of a request, made before it is due."""
        return self._adapter.encode(request)

    async def send(self, prepared: Any, answer: Answer) -> None:
        """Sends and fills the answer; what goes wrong is in the answer. Cancelling it cancels the stream."""
        self._turn = (self._turn + 1) % _CHANNELS
        stub = self._stubs[self._turn]
        answer.sent = answer.seen = self._now()
        try:
            if self._streams:
                await self._stream(stub, prepared, answer)
            else:
                response = await stub.ModelInfer(prepared, metadata=self._metadata)
                self._take(answer, self._adapter.decode_whole, response)
            answer.closed = True
        except self._grpc.RpcError as error:
            if answer.failure is None and not answer.cancelled:
                code, details = error.code().name, error.details() or ""
                answer.failure = Failure(of_code(code, details), (details or code)[:300])
        finally:
            answer.ended = self._now()

    async def _stream(self, stub: Any, prepared: Any, answer: Answer) -> None:
        call = stub.ModelStreamInfer(iter((prepared,)), metadata=self._metadata)
        leave = answer.request.cancel_after
        try:
            if leave == 0:
                answer.cancelled = True
                await call.wait_for_connection()
                return
            async for response in call:
                self._take(answer, self._adapter.decode, response)
                if leave is not None and len(answer.times) >= leave and not answer.finishes:
                    answer.cancelled = True
                    return
                if answer.request.read_delay_s:
                    await asyncio.sleep(answer.request.read_delay_s)
        finally:
            call.cancel()

    def _take(self, answer: Answer, decode: Callable[[Any], Any], response: Any) -> None:
        at = self._now()
        try:
            answer.take(at, decode(response))
        except Garbled as garbled:
            answer.malformed.append((garbled.check, str(garbled)))

    async def stays_open(self) -> bool:
        """Channels stay open."""
        return True

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()
