"""Whole answers over gRPC, more than there is room for, from several connections.

Run: pytest tests/e2e/test_full_grpc.py
"""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from support.real_server import RealServer
from triune_client import _wire

pytestmark = pytest.mark.triton

MOST = 256  # of triune_infer
MORE = 40
CONNECTIONS = 8  # each takes a hundred requests at once


def message(number: int) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="triune_infer")
    inputs = {"text_input": ("BYTES", f"{number} times"), "max_tokens": ("INT32", 1500), "timeout_s": ("FP32", 2.0)}
    for name, (datatype, value) in inputs.items():
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        request.raw_input_contents.append(_wire.pack(datatype, [value]))
    return request.SerializeToString()


def test_who_finds_no_room_is_told_before_the_others_have_their_answers(server: RealServer) -> None:
    """Each refusal must be sent by one of the threads that Triton has for the model, of which calls that wait may have all."""
    outcomes: list[str] = []  # in the order in which they came

    async def ask(call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], number: int) -> None:
        try:
            await call(message(number), timeout=120)
            outcomes.append("answered")
        except grpc.aio.AioRpcError as error:
            outcomes.append(error.code().name)

    async def flood() -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(server.options.grpc_url, options=own) for _ in range(CONNECTIONS)]
        calls = [channel.unary_unary("/inference.GRPCInferenceService/ModelInfer") for channel in channels]
        await asyncio.gather(*(ask(calls[number % CONNECTIONS], number) for number in range(MOST + MORE)))
        for channel in channels:
            await channel.close()

    asyncio.run(flood())
    assert set(outcomes) == {"answered", "UNAVAILABLE"}
    refusals = [place for place, outcome in enumerate(outcomes) if outcome == "UNAVAILABLE"]
    assert len(refusals) >= MORE / 2, "some places were left meanwhile"
    assert refusals[len(refusals) // 2] < MOST / 2, "most answers had ended before"
    server.wait_idle()
