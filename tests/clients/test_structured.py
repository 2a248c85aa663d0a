"""Answers as values and calls of tools through all four clients. Run: pytest tests/clients/test_structured.py"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
from collections.abc import Callable
from typing import Any, Literal

import jsonschema
import pydantic
import pytest

from triune_client import AsyncClient, Chunk, Client, Completion, InvalidAnswer, ToolCall
from triune_client._structured import parse, schema_of
from triune_client.grpc import AsyncGrpcClient, GrpcClient
from triune_client.testing import MockTransport, mock_server


class Climate(enum.Enum):
    MILD = "mild"
    HOT = "hot"


@dataclasses.dataclass
class District:
    number: int
    parts: list[District] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class City:
    name: str
    climate: Climate
    size: float
    kind: Literal["city", "town"]
    mayor: str | None
    place: tuple[float, float]
    districts: list[District] = dataclasses.field(default_factory=list)
    names: dict[str, str] | None = None


class Model(pydantic.BaseModel):
    name: str
    population: int


PARIS = {
    "name": "Paris", "climate": "mild", "size": 105, "kind": "city", "mayor": None, "place": [48.9, 2],
    "districts": [{"number": 1.0, "parts": [{"number": 2}]}],
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = 'Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def test_a_dataclass_has_a_schema_that_its_values_satisfy() -> None:
    schema = schema_of(City)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(PARIS, schema)
    for wrong in (
        {"name": "x"},
        PARIS | {"climate": "cold"},
        PARIS | {"size": "x"},
        PARIS | {"more": 1},
        PARIS | {"place": [1]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_an_answer_becomes_an_instance() -> None:
    city = parse(City, json.dumps(PARIS))
    assert city == City("Paris", Climate.MILD, 105.0, "city", None, (48.9, 2.0), [District(1, [District(2)])])
    assert isinstance(city.size, float) and isinstance(city.districts[0].number, int)


@pytest.mark.parametrize(
    "change", [{"name": 1}, {"climate": "cold"}, {"kind": "x"}, {"place": [1]}, {"size": True}, {"more": 1}]
)
def test_an_answer_that_does_not_fit_is_an_error(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidAnswer) as caught:
        parse(City, json.dumps(PARIS | change))
    assert json.loads(caught.value.partial) == PARIS | change


def test_a_type_without_a_schema_is_refused_before_anything_is_sent() -> None:
    transport = MockTransport("no")
    for wrong in (object, bytes, complex, "json"):
        with pytest.raises(TypeError, match="JSON schema"):
            Client(transport=transport).chat("hi", response_format=wrong)
    assert not transport.requests


def test_a_models_objects_have_no_further_properties() -> None:
    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        inner: Model

    schema = schema_of(Open)
    assert schema["additionalProperties"] is True
    assert schema["$defs"]["Model"]["additionalProperties"] is False


def _sync(make: Any, messages: Any, **call: Any) -> Completion:
    with make() as opened:
        answer: Completion = opened.chat(messages, **call)
        return answer


def _run(make: Any, messages: Any, **call: Any) -> Completion:
    async def go() -> Completion:
        async with make() as opened:
            answer: Completion = await opened.chat(messages, **call)
            return answer

    return asyncio.run(go())


def http(pieces: list[str | Chunk], make: Any, run: Any, call: dict[str, Any], sent: list[dict[str, Any]]) -> Completion:
    with mock_server(lambda request: (sent.append(request), pieces)[1]) as server:
        found: Completion = run(lambda: make(server.url), "hi", **call)
        return found


@pytest.mark.parametrize(("make", "run"), [(Client, _sync), (AsyncClient, _run)], ids=["sync", "async"])
def test_http_clients_parse_what_they_asked_for(make: Any, run: Callable[..., Completion]) -> None:
    sent: list[dict[str, Any]] = []
    found = http(['{"name": "Paris",', '"population": 2}'], make, run, {"response_format": Model}, sent)
    assert found.parsed == Model(name="Paris", population=2)
    wanted = json.loads(sent[0]["response_format"])
    assert wanted["type"] == "json_schema" and wanted["json_schema"]["strict"] is True
    assert wanted["json_schema"]["schema"]["required"] == ["name", "population"]
    assert http(["[1]"], make, run, {"response_format": {"type": "json_object"}}, sent).parsed == [1]
    assert http(["no"], make, run, {"response_format": {"type": "regex", "regex": "no"}}, sent).parsed is None
    with pytest.raises(InvalidAnswer):
        http(['{"name": 1}'], make, run, {"response_format": Model}, sent)


@pytest.mark.parametrize(("make", "run"), [(Client, _sync), (AsyncClient, _run)], ids=["sync", "async"])
def test_http_clients_hand_calls_out_apart_from_the_text(make: Any, run: Callable[..., Completion]) -> None:
    sent: list[dict[str, Any]] = []
    pieces: list[str | Chunk] = [Chunk(text=CALL[:30], tool_format="hermes"), CALL[30:60], CALL[60:]]
    call = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    found = http(pieces, make, run, call, sent)
    assert found.text == "Let me see."
    assert found.tool_calls == (ToolCall(name="weather", arguments='{"city": "Paris"}'),)
    assert (found.finish_reason, found.parsed) == ("tool_calls", None)
    assert found.message["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert json.loads(sent[0]["tools"]) == [TOOL]
    assert (sent[0]["tool_choice"], sent[0]["parallel_tool_calls"]) == ("required", False)


def test_a_chunk_tells_the_calls_that_ended_with_it_and_the_pieces_that_came() -> None:
    pieces: list[str | Chunk] = [Chunk(text=CALL[:30], tool_format="hermes"), CALL[30:], " Done."]
    with Client(transport=MockTransport(pieces)) as client, client.stream_chat("hi", tools=[TOOL]) as stream:
        chunks = list(stream)
    assert [len(chunk.tool_calls) for chunk in chunks] == [0, 1, 0]
    first, *pieces_of_call = [delta for chunk in chunks for delta in chunk.tool_call_deltas]
    assert (first.index, first.name, first.id, first.arguments) == (0, "weather", chunks[1].tool_calls[0].id, "")
    assert "".join(delta.arguments for delta in pieces_of_call) == chunks[1].tool_calls[0].arguments
    assert "".join(chunk.text for chunk in chunks) == stream.text == "Let me see.Done."
    assert chunks[-1].finish_reason == "tool_calls"


def test_an_answer_that_ends_inside_a_call_does_not_claim_to_call() -> None:
    with Client(transport=MockTransport([Chunk(text=CALL.partition("is")[0], tool_format="hermes")])) as client:
        found = client.chat("hi", tools=[TOOL])
    assert found.finish_reason == "stop"
    assert [call.arguments for call in found.tool_calls] == ['{"city": "Par']
    with pytest.raises(ValueError):
        _ = found.tool_calls[0].parsed_arguments


def test_without_tools_a_call_is_text() -> None:
    with Client(transport=MockTransport(CALL)) as client:
        assert client.chat("hi").text == CALL


@pytest.mark.parametrize(("make", "run"), [(GrpcClient, _sync), (AsyncGrpcClient, _run)], ids=["sync", "async"])
def test_grpc_clients_do_the_same(grpc_server: Any, make: Any, run: Callable[..., Completion]) -> None:
    chunk, answer = grpc_server.chunk, grpc_server.answer
    grpc_server.scripts += [
        [chunk('{"name": "Paris", '), chunk('"population": 2}', "stop"), answer()],
        [chunk(CALL[:40], tool_format="hermes"), chunk(CALL[40:], "stop"), answer()],
    ]
    assert run(lambda: make(grpc_server.url), "hi", response_format=Model).parsed == Model(name="Paris", population=2)
    found = run(
        lambda: make(grpc_server.url), "hi", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}
    )
    assert [call.parsed_arguments for call in found.tool_calls] == [{"city": "Paris"}]
    assert json.loads(grpc_server.requests[1]["tool_choice"][0])["function"] == {"name": "weather"}
