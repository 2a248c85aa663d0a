"""Calls over gRPC that the front passes on have lines in its log. Run: pytest tests/gateway/kserve/test_grpc_log.py"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from support.real_server import free_port
from triune_gateway.access_log import AccessLog
from triune_gateway.bearer import Keys
from triune_gateway.kserve.grpc import GrpcFront
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.shared import Shared

INFER = "/inference.GRPCInferenceService/ModelInfer"
KEY = ("authorization", "Bearer one")
Json = dict[str, Any]


class Behind(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Stands in for Triton: what it is sent says how it answers."""

    def service(self, handler_call_details: Any) -> Any:
        async def behave(calls: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for message in calls:
                if message.isupper():
                    await context.abort(grpc.StatusCode[message.decode()], "as asked")
                yield b"a secret answer"
                if message == b"wait":
                    await asyncio.Event().wait()

        return grpc.stream_stream_rpc_method_handler(behave)


async def ask(channel: grpc.aio.Channel, message: bytes, *metadata: tuple[str, str], method: str = INFER) -> None:
    try:
        async for _ in channel.stream_stream(method)(iter([message]), metadata=metadata):
            pass
    except grpc.aio.AioRpcError:
        pass


def lines(log: Path, use: Callable[[grpc.aio.Channel], Awaitable[None]]) -> list[Json]:
    """The lines of what is asked of a front with a key."""

    async def run() -> None:
        behind = grpc.aio.server(handlers=[Behind()])
        upstream = f"127.0.0.1:{behind.add_insecure_port('127.0.0.1:0')}"
        await behind.start()
        front, port = (
            GrpcFront(Shared(Limits(), Keys(("one # team",)), AccessLog(str(log), "kserve")), upstream),
            free_port(),
        )
        await front.start("127.0.0.1", port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await use(channel)
        await front.stop(0)
        await behind.stop(0)

    asyncio.run(run())
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_line_says_who_asked_what_for_how_long_and_no_word_of_it(tmp_path: Path) -> None:
    async def use(channel: grpc.aio.Channel) -> None:
        await ask(channel, b"a secret", KEY, ("x-request-id", "mine"))

    (line,) = lines(tmp_path / "log", use)
    assert (line["request_id"], line["tenant"], line["status"], line["source"]) == ("mine", "team", 200, "kserve")
    assert (line["method"], line["path"], line["client"]) == ("gRPC", INFER, "127.0.0.1")
    assert 0 < line["first_chunk_s"] <= line["seconds"]
    assert "secret" not in (tmp_path / "log").read_text() and "one" not in line.values()


@pytest.mark.parametrize(
    ("message", "metadata", "method", "status"),
    [
        (b"INVALID_ARGUMENT", (KEY,), INFER, 400),
        (b"UNAVAILABLE", (KEY,), INFER, 503),
        (b"INTERNAL", (KEY,), INFER, 500),
        (b"x", (), INFER, 401),
        (b"x", (("authorization", "Bearer two"),), INFER, 401),
        (b"x", (KEY,), "/inference.GRPCInferenceService/RepositoryModelLoad", 403),
        (b"x", (), "/inference.GRPCInferenceService/ServerLive", 200),
    ],
)
def test_the_line_has_the_status_that_http_would_have(
    tmp_path: Path, message: bytes, metadata: tuple[tuple[str, str], ...], method: str, status: int
) -> None:
    async def use(channel: grpc.aio.Channel) -> None:
        await ask(channel, message, *metadata, method=method)

    (line,) = lines(tmp_path / "log", use)
    assert (line["status"], line.get("tenant")) == (status, "team" if KEY in metadata else None)


def test_who_leaves_has_a_line_that_says_so(tmp_path: Path) -> None:
    async def use(channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(INFER)(iter([b"wait"]), metadata=(KEY,))
        await call.read()
        call.cancel()
        while not (tmp_path / "log").stat().st_size:
            await asyncio.sleep(0.01)

    (line,) = lines(tmp_path / "log", use)
    assert line["status"] == 499 and "first_chunk_s" in line
