"""Lean clients for loads that share a machine with the server: requests are bytes, of answers the status is read.

A client of httpx takes a millisecond a request, which twenty times a server's capacity is much of a core.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import grpc.aio
from tritonclient.grpc import service_pb2

from triune_client import _wire

Ask = Callable[[int], Awaitable[tuple[str, bool]]]  # number of a request -> its status, and whether it says when to come again
_END = b"\r\n\r\n"
_CHANNELS = 32
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    """One connection over HTTP, for one request after the other; answers have a length, or are in chunks."""

    def __init__(self) -> None:
        self._got = b""
        self._waiting: asyncio.Future[tuple[str, bool]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(("the connection ended", False))

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(_END)
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        head = self._got[: end + 2]
        length = _LENGTH.search(head)
        whole = len(self._got) >= end + len(_END) + int(length[1]) if length is not None else self._got.endswith(_LAST_CHUNK)
        if whole:
            self._got = b""
            self._waiting.set_result((head[9:12].decode(), b"\r\nretry-after:" in head.lower()))

    async def exchange(self, request: bytes) -> tuple[str, bool]:
        assert self.transport is not None, "it is open"
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiting


def over_http(address: str, path: str, body: Callable[[int], bytes], key: str | None = None) -> Ask:
    """Posts JSON to a path, over as many connections as are needed at once.

    Args:
        address: HOST:PORT.
        body: makes that of a request by its number.
    """
    host, _, port = address.rpartition(":")
    idle: list[_Connection] = []
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""

    async def ask(number: int) -> tuple[str, bool]:
        sent = body(number)
        while idle and idle[-1].transport is None:
            idle.pop()
        try:
            if idle:
                connection = idle.pop()
            else:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, host, int(port))
        except OSError as error:
            return type(error).__name__, False
        try:
            found = await connection.exchange(f"{head}content-length: {len(sent)}\r\n\r\n".encode() + sent)
        except asyncio.CancelledError:
            if connection.transport is not None:
                connection.transport.abort()
            raise
        idle.append(connection)
        return found

    return ask


def over_grpc(
    address: str, model: str, inputs: Callable[[int], Mapping[str, tuple[str, object]]], key: str | None = None
) -> Ask:
    """Asks a model for one answer by ModelInfer.

    Args:
        address: HOST:PORT.
        inputs: the type and value of each, by the request's number.
    """
    # Over several connections, as of several clients: one takes a hundred requests at once, and lets the others wait here.
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(_CHANNELS)]
    calls = [channel.unary_unary("/inference.GRPCInferenceService/ModelInfer") for channel in channels]  # bytes each way
    metadata = (("authorization", f"Bearer {key}"),) if key else None

    async def ask(number: int) -> tuple[str, bool]:
        request = service_pb2.ModelInferRequest(model_name=model)
        for name, (datatype, value) in inputs(number).items():
            request.inputs.add(name=name, datatype=datatype, shape=[1])
            request.raw_input_contents.append(_wire.pack(datatype, [value]))
        try:
            await calls[number % _CHANNELS](request.SerializeToString(), timeout=600, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return error.code().name, False
        return "OK", False

    return ask
