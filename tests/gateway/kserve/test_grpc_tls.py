"""gRPC of the front over TLS, before a stand-in for Triton's. Run: pytest tests/gateway/kserve/test_grpc_tls.py"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from support.certificates import LOCAL, Authority, Pair
from support.real_server import free_port
from triune_gateway.access_log import AccessLog
from triune_gateway.bearer import Keys
from triune_gateway.kserve.grpc import GrpcFront
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.shared import Shared
from triune_gateway.tls import Tls

PATIENCE_S = 20.0
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Says what it is told."""

    def service(self, handler_call_details: Any) -> Any:
        async def behave(calls: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in calls:
                yield message

        return grpc.stream_stream_rpc_method_handler(behave)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("grpc", *LOCAL)


def served(pair: Pair, test: Callable[[int, Tls], Awaitable[None]], **bounds: float) -> None:
    """Run a test of a front with that certificate, at a port."""

    async def run() -> None:
        tls = Tls(pair.certificate, pair.key)
        shared = Shared(dataclasses.replace(Limits(), **bounds), Keys(()), AccessLog(None, "kserve"))
        with tempfile.TemporaryDirectory() as folder:
            behind = grpc.aio.server(handlers=[Echo()])
            behind.add_insecure_port(f"unix:{folder}/grpc")
            await behind.start()
            front, port = GrpcFront(shared, f"unix:{folder}/grpc", tls), free_port()
            await front.start("127.0.0.1", port)
            try:
                await test(port, tls)
            finally:
                await front.stop(0)
                await behind.stop(0)

    asyncio.run(run())


async def says(port: int, file: Path, name: str = "localhost") -> str:
    """What comes back of a word, or which status."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", name)]
    credentials = grpc.ssl_channel_credentials(file.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        try:
            found = [one async for one in channel.stream_stream(METHOD)(iter([b"word"]), timeout=PATIENCE_S)]
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return b"".join(found).decode()


def test_calls_pass_and_who_trusts_another_or_speaks_plainly_gets_nowhere(authority: Authority, pair: Pair) -> None:
    async def test(port: int, tls: Tls) -> None:
        assert await says(port, authority.file) == await says(port, pair.certificate) == "word"
        assert await says(port, authority.file, "other.example") == "UNAVAILABLE"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(METHOD)(b"word", timeout=PATIENCE_S)

    served(pair, test)


def test_a_renewed_certificate_is_served_to_new_connections(authority: Authority, pair: Pair) -> None:
    async def test(port: int, tls: Tls) -> None:
        assert await says(port, authority.file) == "word"
        pair.become(authority.issue("renewed", "DNS:renewed.example"))
        tls.look()
        assert await says(port, authority.file, "renewed.example") == "word"
        assert await says(port, authority.file) == "UNAVAILABLE"

    served(pair, test)


def test_handshakes_end_in_time_and_count_as_connections(authority: Authority, pair: Pair) -> None:
    async def test(port: int, tls: Tls) -> None:
        silent = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(3)]
        assert await says(port, authority.file) == "UNAVAILABLE", "they are all that there may be"
        for one in silent:
            with one:
                assert await asyncio.to_thread(one.recv, 1) == b""
        async with asyncio.timeout(PATIENCE_S):
            while await says(port, authority.file) != "word":
                await asyncio.sleep(0.05)

    served(pair, test, connections=3, head_s=2)
