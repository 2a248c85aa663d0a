"""Structured answers and tools over the real server, with the real `openai` package and our clients.

Run: pytest tests/e2e/test_structured.py
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionMessageParam

from fakes.schemas import random_schema
from support.real_server import RealServer
from triune_client import AsyncClient, Client
from triune_client.grpc import AsyncGrpcClient, GrpcClient

pytestmark = pytest.mark.triton


@dataclasses.dataclass
class City:
    name: str
    size: Literal["small", "large"]
    climate: Literal["mild", "hot", "cold"] | None = None


class Event(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=30)
    weekday: Literal["Monday", "Friday"]
    people: list[Literal["Anna", "Ben"]] = pydantic.Field(max_length=3)


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "The weather in a city", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "additionalProperties": False}}},
]
ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(server: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.options.openai_url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_openais_parse_gives_the_model(client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Anna and Ben meet on Friday for a party."}]
    found = client.chat.completions.parse(model="triune", messages=messages, response_format=Event, max_tokens=300)
    (choice,) = found.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Event)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_openais_tools_are_called_streamed_and_not_and_answered(client: openai.OpenAI, choice: Any) -> None:
    ask: dict[str, Any] = {"model": "triune", "tools": TOOLS, "tool_choice": choice, "max_tokens": 300, "temperature": 0}
    (whole,) = client.chat.completions.create(messages=ASK, **ask).choices
    assert whole.finish_reason == "tool_calls" and whole.message.tool_calls and whole.message.content is None
    streamed: list[list[str]] = []
    pieces = 0
    for event in client.chat.completions.create(messages=ASK, stream=True, **ask):
        for call in event.choices[0].delta.tool_calls or ():
            assert call.function is not None and call.function.arguments is not None
            if call.id:
                assert call.index == len(streamed) and call.function.arguments == ""
                streamed.append([str(call.function.name), ""])
            streamed[call.index][1] += call.function.arguments
            pieces += 1
    assert streamed == [[call.function.name, call.function.arguments] for call in whole.message.tool_calls]  # type: ignore[union-attr]
    assert pieces > 2 * len(streamed)  # the arguments come as they are generated
    with client.chat.completions.stream(messages=ASK, **ask) as helper:  # the package's own way to put them together
        (final,) = helper.get_final_completion().choices
    assert [[call.function.name, call.function.arguments] for call in final.message.tool_calls or ()] == streamed
    for name, arguments in streamed:
        if name == "weather":
            jsonschema.validate(json.loads(arguments), PARAMETERS)
    results: list[Any] = [{"role": "tool", "tool_call_id": call.id, "content": "18 °C"} for call in whole.message.tool_calls]
    turns = [*ASK, whole.message.model_dump(exclude_none=True), *results]
    after = client.chat.completions.create(model="triune", messages=turns, tools=TOOLS, max_tokens=16)
    assert after.usage is not None and after.usage.prompt_tokens > 100


@pytest.mark.parametrize("form", [{"type": "json_object"}, {"type": "regex", "regex": "[a-z]{3,8}"}])
def test_other_formats_hold_in_streams(client: openai.OpenAI, form: Any) -> None:
    ask: dict[str, Any] = {"model": "triune", "messages": ASK, "response_format": form, "max_tokens": 200, "seed": 3}
    whole = client.chat.completions.create(**ask).choices[0]
    events = [event.choices[0] for event in client.chat.completions.create(**ask, stream=True)]
    text = "".join(event.delta.content or "" for event in events)
    assert text == whole.message.content
    assert events[-1].finish_reason == whole.finish_reason
    if whole.finish_reason == "stop":
        assert isinstance(json.loads(text), dict) if form["type"] == "json_object" else re.fullmatch("[a-z]{3,8}", text)


def test_our_clients_parse_and_call_over_http_and_grpc(server: RealServer) -> None:
    options: dict[str, Any] = {"response_format": City, "max_tokens": 80, "temperature": 0}
    tools: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 80}
    grpc_url = f"127.0.0.1:{server.options.grpc_port}"
    found = []
    for made in (Client(server.url), GrpcClient(grpc_url)):
        with made as sync_client:
            found.append((sync_client.chat("Tell me about Paris.", **options), sync_client.chat("Weather in Rome?", **tools)))

    async def ask() -> None:
        for made in (AsyncClient(server.url), AsyncGrpcClient(grpc_url)):
            async with made as async_client:
                found.append(
                    (
                        await async_client.chat("Tell me about Paris.", **options),
                        await async_client.chat("Weather in Rome?", **tools),
                    )
                )

    asyncio.run(ask())
    assert len({(answer.text, called.tool_calls) for answer, called in found}) == 1
    for answer, called in found:
        assert isinstance(answer.parsed, City)
        assert (called.finish_reason, len(called.tool_calls)) == ("tool_calls", 1)


@pytest.mark.parametrize("model", ["triune", "ensemble"])
def test_the_tensors_of_old_clients_constrain(server: RealServer, model: str) -> None:
    pair = server.generate(
        model,
        text_input="A date:",
        guided_decoding_guide_type="regex",
        guided_decoding_guide="[0-9]{4}-[0-9]{2}",
        max_tokens=32,
    ).json()
    assert re.fullmatch(r"\d{4}-\d{2}", pair["text_output"]) and pair["finish_reason"] == "stop"
    sampling = json.dumps({"guided_decoding": {"choice": ["yes", "no"]}, "max_tokens": "32"})
    assert server.generate(model, text_input="Is it?", sampling_parameters=sampling).json()["text_output"] in ("yes", "no")


def test_30_random_schemas_at_temperature_1_beside_free_requests(server: RealServer) -> None:
    schemas = [random_schema(random.Random(number), 2) for number in range(100, 130)]
    free = [f"Count: {number}, {number + 1}," for number in range(8)]

    async def run() -> tuple[list[Any], list[str], list[str]]:
        async with AsyncClient(server.url) as client:
            forms = [{"type": "json_schema", "json_schema": {"name": "x", "schema": s, "strict": True}} for s in schemas]
            constrained = [
                client.chat("Give an example.", response_format=form, temperature=1.0, seed=number, max_tokens=100)
                for number, form in enumerate(forms)
            ]
            unconstrained = [client.generate(prompt, temperature=1.0, seed=1, max_tokens=40) for prompt in free]
            found = await asyncio.gather(*constrained, *unconstrained)
            alone = [(await client.generate(prompt, temperature=1.0, seed=1, max_tokens=40)).text for prompt in free[:3]]
            return list(found[:30]), [answer.text for answer in found[30:]], alone

    constrained, together, alone = asyncio.run(run())
    assert together[:3] == alone
    finished = 0
    for schema, answer in zip(schemas, constrained, strict=True):
        if answer.finish_reason == "stop":
            finished += 1
            jsonschema.validate(json.loads(answer.text), schema)
        else:
            assert answer.finish_reason == "length" and answer.parsed is None
    assert finished >= 10


def guided(kind: str, guide: str) -> dict[str, str]:
    return {"text_input": "a", "guided_decoding_guide_type": kind, "guided_decoding_guide": guide}


DEEP_RULES = "start: x0\n" + "\n".join(f"x{i}: x{i + 1}" for i in range(5000))
HI = '[{"role": "user", "content": "Hi"}]'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (guided("structural_tag", "{}"), "json or json_schema"),
        ({"text_input": "a", "guided_decoding_guide": "{}"}, "without guided_decoding_guide_type"),
        (guided("json_schema", '{"type": "objct"}'), "Invalid type: objct"),
        (guided("json_schema", '{"not": {}}'), "Unimplemented keys"),
        (guided("regex", "("), "unclosed group"),
        (guided("regex", "(" * 5000), "regex cannot be served"),
        (guided("ebnf_grammar", DEEP_RULES), "at most 1,000"),
        ({"text_input": "a", "tools": json.dumps(TOOLS)}, "send messages"),
        ({"messages": HI, "tools": "[1]"}, "tools[0] is 1"),
        ({"messages": HI, "tools": json.dumps(TOOLS), "tool_choice": "never"}, "tool_choice is"),
        ({"messages": HI, "response_format": '{"type": "xml"}'}, "response_format.type is 'xml'"),
    ],
    ids=range(11),
)
def test_what_cannot_be_served_is_refused_by_name(server: RealServer, body: dict[str, str], message: str) -> None:
    response = server.generate(**body)
    assert response.status_code == 400 and message in response.json()["error"]


EMPTY = {"type": "object", "properties": {"a": {"pattern": "[^\\s\\S]", "type": "string"}}, "required": ["a"]}  # has no answer
SCHEMA = {"name": "x", "schema": EMPTY, "strict": True}
PROMPT, CHAT = {"prompt": "a"}, {"messages": ASK}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", PROMPT | {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, "response_format"),
        ("completions", PROMPT | {"structured_outputs": {"regex": "[^\\s\\S]"}}, "structured_outputs"),
        ("chat/completions", CHAT | {"guided_json": EMPTY}, "guided_json"),
        ("chat/completions", CHAT | {"guided_grammar": "start: start"}, "guided_grammar"),
        ("chat/completions", CHAT | {"tools": [{"type": "function", "function": {"name": "f", "parameters": EMPTY}}],
                                     "tool_choice": "required"}, "tools"),
        ("responses", {"input": "a", "text": {"format": {"type": "json_schema", **SCHEMA}}}, "text.format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_field_whose_form_no_answer_has_is_named_as_it_was_sent(
    server: RealServer, path: str, body: dict[str, Any], param: str, stream: bool
) -> None:
    url = f"{server.options.openai_url}/v1/{path}"
    response = httpx.post(url, json={"model": "triune", "stream": stream} | body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


def test_a_cancelled_answer_under_a_constraint_is_freed(server: RealServer) -> None:
    with Client(server.url) as client, client.stream("a", response_format={"type": "regex", "regex": "a{1500}"}) as stream:
        next(stream)
        stream.cancel()
    began = time.monotonic()
    server.wait_idle(timeout_s=5)
    assert time.monotonic() - began < 5
