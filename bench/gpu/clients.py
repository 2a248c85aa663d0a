"""Clients of the ensemble over gRPC, spread over processes: one Python cannot read what a GPU writes."""

from __future__ import annotations

import asyncio
import multiprocessing
import struct
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ..pieces import read_piece

_START_S = 0.2  # from the order to all processes until they send at once
_CHANNELS = 4  # of a process


@dataclass(frozen=True)
class Asked:
    """One request."""

    text: str  # a prompt, or with `chat` messages as JSON
    tokens: int  # of the answer
    temperature: float = 0.0
    seed: int = 1
    stream: bool = True
    ignore_eos: bool = True
    chat: bool = False


@dataclass(frozen=True)
class Answered:
    """What a client saw; times by this machine's monotonic clock."""

    sent: float
    first: float
    last: float
    pieces: int
    prompt_tokens: int
    tokens: int
    text: bytes
    came: tuple[tuple[float, int], ...] = ()  # of each piece with tokens: when, and how many


class Clients:
    """Processes that are ready to ask."""

    def __init__(self, address: str, processes: int) -> None:
        self._address = address
        context = multiprocessing.get_context("spawn")
        self._processes = [ProcessPoolExecutor(1, context) for _ in range(processes)]
        for ready in [process.submit(_nothing) for process in self._processes]:
            ready.result()

    def ask(self, asked: Sequence[Asked]) -> list[Answered]:
        """Send all at once; the answers in their order.

        Raises:
            RuntimeError: one was answered with an error.
        """
        count, at = len(self._processes), time.monotonic() + _START_S
        parts = [(process, asked[n::count]) for n, process in enumerate(self._processes) if asked[n::count]]
        waiting = [process.submit(_ask_all, self._address, part, at) for process, part in parts]
        found = [one.result() for one in waiting]
        return [found[n % count][n // count] for n in range(len(asked))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.shutdown(cancel_futures=True)


def _nothing() -> None:
    """What a process does while it starts."""


def _ask_all(address: str, asked: Sequence[Asked], at: float) -> list[Answered]:
    return asyncio.run(_gather(address, asked, at))


async def _gather(address: str, asked: Sequence[Asked], at: float) -> list[Answered]:
    # A channel of its own: by default those of one process to one address share a connection.
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(min(_CHANNELS, len(asked)))
    ]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
    requests = [_request(one) for one in asked]
    await asyncio.sleep(max(at - time.monotonic(), 0.0))
    calls = (_ask(stubs[n % len(stubs)], request) for n, request in enumerate(requests))
    answers = await asyncio.gather(*calls)
    await asyncio.gather(*(channel.close() for channel in channels))
    return answers


def _request(asked: Asked) -> Any:
    request, text = service_pb2.ModelInferRequest(model_name="triune"), asked.text.encode()
    for name, datatype, raw in (
        ("messages" if asked.chat else "text_input", "BYTES", struct.pack("<I", len(text)) + text),
        ("max_tokens", "INT32", struct.pack("<i", asked.tokens)),
        ("temperature", "FP32", struct.pack("<f", asked.temperature)),
        ("seed", "UINT64", struct.pack("<Q", asked.seed)),
        ("ignore_eos", "BOOL", bytes([asked.ignore_eos])),
        ("stream", "BOOL", bytes([asked.stream])),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        request.raw_input_contents.append(raw)
    return request


async def _ask(stub: Any, request: Any) -> Answered:
    sent = time.monotonic()
    came, pieces, prompted, text = list[tuple[float, int]](), 0, 0, bytearray()
    async for response in stub.ModelStreamInfer(iter((request,))):
        piece = read_piece(response)
        if piece.tokens:
            came.append((time.monotonic(), piece.tokens))
        pieces, prompted = pieces + 1, prompted + piece.prompt_tokens
        text += piece.text
    first = came[0][0] if came else 0.0
    tokens = sum(count for _, count in came)
    return Answered(sent, first, time.monotonic(), pieces, prompted, tokens, bytes(text), tuple(came))
