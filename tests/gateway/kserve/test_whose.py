"""Whose a request is the front alone says, over HTTP and gRPC; over gRPC it also refuses for a server that is full.

Run: pytest tests/gateway/kserve/test_whose.py
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from fakes.kserve import PATH, front, post
from support.real_server import free_port
from triune_gateway.access_log import AccessLog
from triune_gateway.bearer import CLIENT, Keys
from triune_gateway.kserve import messages
from triune_gateway.kserve.grpc import GrpcFront
from triune_gateway.kserve.limits import Limits
from triune_gateway.kserve.shared import Shared
from triune_gateway.kserve.upstream import told

FULL = "UNAVAILABLE [overloaded]: 272 requests are here already"
KEYS = ("g # greedy", "o # other")


def parameters(body: bytes) -> list[tuple[str, Any]]:
    """What Triton 24.10 makes of the members that are no inputs: in their order, each the first of its name, and of those of
    `parameters` where that stands. Who reads them takes the last of a name."""
    pairs: list[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    first = dict(reversed(pairs))
    found: list[tuple[str, Any]] = []
    for name, _ in pairs:
        found += dict(reversed(first[name])).items() if name == "parameters" else [(name, first[name])]
    return found


SPELLED = st.sampled_from(["x-triune-client", r"x\u002dtriune-client", "parameters", "text_input", "id", "X-Triune-Client"])
VALUES = st.one_of(st.sampled_from(['"stranger"', "3", "null", "[]", '"}"', '"{"']))
MEMBERS = st.lists(st.tuples(SPELLED, st.one_of(VALUES, st.lists(st.tuples(SPELLED, VALUES), max_size=3))), max_size=5)


def written(members: list[tuple[str, Any]]) -> str:
    def value(name: str, one: Any) -> str:
        return (
            (written(one) if isinstance(one, list) else "{}") if name == "parameters" else one if isinstance(one, str) else '""'
        )

    return "{" + " ,".join(f' "{name}": {value(name, one)}' for name, one in members) + " }"


@given(MEMBERS, st.sampled_from(["", " ", "\r\n\t"]))
def test_nothing_that_a_body_says_of_its_client_counts(members: list[tuple[str, Any]], space: str) -> None:
    body = f"{space}{written(members)}{space}".encode()
    after = told(body, "address")
    assert dict(parameters(after))[CLIENT] == "address"
    others = [one for one in parameters(after) if one[0] != CLIENT]
    assert others == [one for one in parameters(body) if one[0] != CLIENT], "something else was changed"


@pytest.mark.parametrize("body", [b"", b"[]", b"}{", b"no JSON"])
def test_a_body_that_is_no_object_stays_as_it_is(body: bytes) -> None:
    assert told(body, "address") == body


def test_http_says_whose_a_request_is_only_where_the_server_shares_itself() -> None:
    async def run() -> None:
        async with front(keys=KEYS) as running:
            sent = post(b'{"a": 1}', b"Authorization: Bearer g", b"x-triune-client: stranger")
            infer = post(b'{"a": 1}', b"Authorization: Bearer g", path=PATH.replace("generate", "infer"))
            await running.exchange(sent)
            assert running.seen[0][1] == b'{"a": 1}' and b"x-triune-client" not in running.seen[0][0]
            running.shared.fair_share = True
            for one in (sent, infer):
                await running.exchange(one)
            assert running.seen[1][1] == b'{"x-triune-client": "greedy","a": 1,"x-triune-client": "greedy"}'
            assert [head.count(b"\r\nx-triune-client: greedy\r\n") for head, _ in running.seen[1:]] == [1, 1]
            assert running.seen[2][1] == b'{"a": 1}'

    asyncio.run(run())


@dataclass
class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers every request, or fails it with what it is told to say."""

    says: str = ""
    asked: list[str] = field(default_factory=list)  # the models
    clients: list[list[str]] = field(default_factory=list)  # of each call, as the metadata name them

    def _note(self, request: Any, context: Any) -> None:
        self.asked.append(request.model_name)
        self.clients.append([str(value) for name, value in context.invocation_metadata() if name == CLIENT])

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self.says:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self.says)
        return service_pb2.ModelInferResponse(model_name=request.model_name)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self._note(request, context)
            yield service_pb2.ModelStreamInferResponse(error_message=self.says and f"in ensemble 'triune', {self.says}")


@dataclass
class Running:
    triton: Triton
    stub: Any
    shared: Shared

    def metadata(self, key: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {key}"), (CLIENT, "stranger"))

    async def infer(self, key: str = "g", **more: Any) -> str:
        """What is said of it: nothing, or that there is no room."""
        call = self.stub.ModelInfer(request(**more), metadata=self.metadata(key))
        assert await call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        return str(await call.details())

    async def stream(self, *requests: Any, key: str = "g") -> list[str]:
        call = self.stub.ModelStreamInfer(iter(requests), metadata=self.metadata(key))
        return [response.error_message async for response in call]


def request(model: str = "triune_infer", **inputs: str) -> Any:
    made = service_pb2.ModelInferRequest(model_name=model)
    for name, datatype in inputs.items():
        made.inputs.add(name=name, datatype=datatype, shape=[1])
    return made


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    triton, behind = Triton(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, behind)
    upstream = f"127.0.0.1:{behind.add_insecure_port('127.0.0.1:0')}"
    await behind.start()
    shared = Shared(Limits(), Keys(KEYS), AccessLog(None), fair_share=True)
    before, port = GrpcFront(shared, upstream), free_port()
    await before.start("127.0.0.1", port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Running(triton, service_pb2_grpc.GRPCInferenceServiceStub(channel), shared)
    await before.stop(0)
    await behind.stop(0)


def test_over_grpc_the_key_says_whose_a_request_is() -> None:
    async def run() -> None:
        async with running() as it:
            assert await it.infer("g") == "" and await it.stream(request("triune"), key="o") == [""]
            assert it.triton.clients == [["greedy"], ["other"]]
            it.shared.fair_share = False
            await it.infer("g")
            assert it.triton.clients[-1] == []

    asyncio.run(run())


def test_after_the_server_s_word_the_grpc_front_refuses_until_a_request_has_another() -> None:
    async def run() -> None:
        async with running() as it:
            now = [0.0]
            it.shared.gates._clock = lambda: now[0]
            it.triton.says = FULL
            assert await it.infer() == FULL
            assert (await it.infer()).startswith("UNAVAILABLE [overloaded]: ") and len(it.triton.asked) == 1
            now[0] += 1.0
            it.triton.says = ""
            assert [await it.infer() for _ in range(3)] == [""] * 3

    asyncio.run(run())


def test_a_stream_that_is_refused_goes_on_with_its_next_request() -> None:
    async def run() -> None:
        async with running() as it:
            now = [0.0]
            it.shared.gates._clock = lambda: now[0]
            it.triton.says = FULL
            assert await it.stream(request("triune")) == [f"in ensemble 'triune', {FULL}"]
            it.triton.says = ""
            call = it.stub.ModelStreamInfer(metadata=it.metadata("g"))
            await call.write(request("triune"))
            assert (await call.read()).error_message.startswith("UNAVAILABLE [overloaded]: ") and len(it.triton.asked) == 1
            now[0] += 1.0
            for _ in range(2):
                await call.write(request("triune"))
                assert (await call.read()).error_message == ""
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF and len(it.triton.asked) == 3

    asyncio.run(run())


def test_a_request_that_ends_another_passes_over_grpc() -> None:
    async def run() -> None:
        async with running() as it:
            it.triton.says = FULL
            await it.infer()
            it.triton.says = ""
            assert await it.infer(cancel="BOOL") == "" and await it.infer(stop="BOOL") == ""
            assert await it.infer(stop="BYTES") != ""

    asyncio.run(run())


@given(st.text(max_size=300), st.text(max_size=20))
def test_fields_are_read_and_written_as_protocol_buffers_has_them(model: str, said: str) -> None:
    assert messages.first_text(service_pb2.ModelInferRequest(model_name=model, id=said).SerializeToString()) == model
    assert messages.first_text(service_pb2.ModelInferRequest(model_version=model).SerializeToString()) == ""
    made = service_pb2.ModelStreamInferResponse.FromString(messages.stream_error(model))
    assert made.error_message == model


@given(st.binary(max_size=40))
def test_no_bytes_break_the_reading_of_a_field(data: bytes) -> None:
    messages.first_text(data)


@pytest.mark.parametrize(("inputs", "count"), [({"n": "INT32"}, 2), ({"best_of": "INT32"}, 2), ({"seed": "UINT64"}, 1)])
def test_a_message_says_how_many_answers_it_asks_for(inputs: dict[str, str], count: int) -> None:
    made = request(**inputs)
    assert messages.places(made.SerializeToString()) == count
    for name, rows in itertools.product(("text_input", "messages"), (1, 2, 200, 70_000)):
        del made.inputs[:]
        made.inputs.add(name=name, datatype="BYTES", shape=[rows, 1])
        assert messages.places(made.SerializeToString()) == (1 if rows == 1 else 2)
