"""/v1/messages, Anthropic's protocol: what is asked, and what comes back. Run: pytest tests/gateway/test_messages.py"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fakes.ensemble import Ensemble, Gateway, answer, piece

Json = dict[str, Any]
ASK: Json = {"model": "triune", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
TOOL: Json = {"name": "weather", "description": "asks", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "asks", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def ask(gateway: Gateway, **body: Any) -> Json:
    response = gateway.post("messages", ASK | body)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


def sent(gateway: Gateway, **body: Any) -> Json:
    ask(gateway, **body)
    return gateway.ensemble.requests[-1]


def events(gateway: Gateway, **body: Any) -> list[Json]:
    response = gateway.post("messages", ASK | body | {"stream": True})
    assert response.status_code == 200, response.text
    found = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = re.fullmatch(r"event: (.*)\ndata: (.*)", block).groups()  # type: ignore[union-attr]
        found.append(json.loads(data))
        assert found[-1]["type"] == name
    return found


def rebuilt(found: list[Json]) -> Json:
    """The message as a client builds it from the events."""
    message: Json = found[0]["message"]
    written: dict[int, str] = {}
    for event in found[1:]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            (value,) = (value for name, value in delta.items() if name != "type")
            if delta["type"] == "input_json_delta":
                written[event["index"]] = written.get(event["index"], "") + value
            else:
                block[delta["type"].removesuffix("_delta")] += value
        elif event["type"] == "content_block_stop" and message["content"][event["index"]]["type"] == "tool_use":
            message["content"][event["index"]]["input"] = json.loads(written[event["index"]])
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    return message


def thinking_and_calling(request: Json) -> list[Any]:
    return [
        piece(reasoning_output="hm ") | {"num_input_tokens": 5}, piece(reasoning_output="so"),
        piece("Let me see.\n" + CALL[:30], tool_format="hermes"), piece(CALL[30:]), piece("", "stop"),
    ]  # fmt: skip


def test_events_come_in_the_order_that_clients_rely_on(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = thinking_and_calling
    kinds = [(event["type"], event.get("delta", {}).get("type", "")) for event in events(gateway, tools=[TOOL])]
    start, delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
    assert [kind for n, kind in enumerate(kinds) if kind not in kinds[n - 1 : n]] == [
        ("message_start", ""), ("ping", ""),
        (start, ""), (delta, "thinking_delta"), (delta, "signature_delta"), (stop, ""),
        (start, ""), (delta, "text_delta"), (stop, ""),
        (start, ""), (delta, "input_json_delta"), (stop, ""),
        ("message_delta", ""), ("message_stop", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("display", [None, "omitted"])
def test_a_streamed_message_is_the_whole_one(ensemble: Ensemble, gateway: Gateway, display: str | None) -> None:
    ensemble.reply = thinking_and_calling
    body = {"tools": [TOOL], "thinking": {"type": "adaptive", "display": display}}
    whole, streamed = ask(gateway, **body), rebuilt(events(gateway, **body))
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use"]
    assert whole["content"][0]["thinking"] == ("hm so" if display is None else "")
    for message in (whole, streamed):
        assert message["content"][2].pop("id").startswith("call_") and message.pop("id").startswith("msg_")
    assert streamed == whole
    assert (whole["stop_reason"], whole["content"][2]["input"]) == ("tool_use", {"city": "Paris"})
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (5, 5)


@pytest.mark.parametrize(
    ("last", "body", "wanted"),
    [
        (piece("", "stop"), {}, ("end_turn", None)),
        (piece("", "length"), {}, ("max_tokens", None)),
        (piece("", "stop", stop_reason="END"), {"stop_sequences": ["END"]}, ("stop_sequence", "END")),
    ],
)
def test_a_message_says_why_it_ended(ensemble: Ensemble, gateway: Gateway, last: Json, body: Json, wanted: Any) -> None:
    ensemble.reply = lambda request: [piece("Hello") | {"num_input_tokens": 5}, last]
    found = ask(gateway, **body)
    assert (found["stop_reason"], found["stop_sequence"]) == wanted


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"system": "Be brief."}, [{"role": "system", "content": "Be brief."}, ASK["messages"][0]]),
        ({"system": [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "B"}]},
         [{"role": "system", "content": "AB"}, ASK["messages"][0]]),
        ({"messages": [
            {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "See."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "Go on."},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "18 °C"}]}]}]},
         [{"role": "user", "content": "Hi"},
          {"role": "assistant", "content": "See.", "reasoning_content": "hm", "tool_calls": [
              {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]},
          {"role": "tool", "tool_call_id": "toolu_1", "content": "18 °C"}, {"role": "user", "content": "Go on."}]),
    ],
)  # fmt: skip
def test_blocks_are_the_conversation_of_a_chat(gateway: Gateway, body: Json, messages: list[Json]) -> None:
    assert json.loads(sent(gateway, **body)["messages"]) == messages


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop_sequences": ["x"]},
         {"max_tokens": 50, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": ["x"]}),
        ({"tools": [TOOL]}, {"tools": [FUNCTION]}),
        ({"tools": [TOOL | {"cache_control": {"type": "ephemeral"}}], "tool_choice": {"type": "any"}},
         {"tools": [FUNCTION], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
         {"tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"enable_thinking": True, "thinking_budget": 2000}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
         {"enable_thinking": True, "thinking_budget": 1024}),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
         {"response_format": {
             "type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}}}),
    ],
)  # fmt: skip
def test_what_is_asked_reaches_the_server(gateway: Gateway, body: Json, wanted: Json) -> None:
    request = sent(gateway, **body)
    for name, value in wanted.items():
        found = request[name]
        assert (json.loads(found) if isinstance(value, dict) or name == "tools" else found) == value


def small(request: Json) -> Any:
    """A model that does not think and holds little."""
    for name, code in (("enable_thinking", "unsupported"), ("thinking_budget", "unsupported"), ("max_tokens", "too_long")):
        if request.get(name):
            return 400, f"INVALID_ARGUMENT [{code} {name}]: no"
    return answer("Hel", "lo")


def test_what_clients_send_to_larger_models_does_no_harm(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = small
    assert ask(gateway, max_tokens=32000, thinking={"type": "enabled", "budget_tokens": 10000})["content"][0]["text"] == "Hello"


def refusal(gateway: Gateway, body: Json, status: int, path: str = "messages", **headers: str) -> Json:
    response = gateway.post(path, body, **headers)
    assert response.status_code == status, response.text
    found: Json = response.json()
    assert set(found) == {"type", "error"} and found["type"] == "error" and set(found["error"]) == {"type", "message"}
    error: Json = found["error"]
    return error


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"mystery": 1}, "mystery"),
        ({"container": "x"}, "container"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": []}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": 0}]}]},
            "messages[0].content[0].content",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": []}]}]},
            "messages[0].content[0].input",
        ),
        ({"system": [{"type": "text", "text": "a"}, {"type": "image"}]}, "system[1]"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": 3}]}]}, "messages[0].content[0].id"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"system": "Be brief.", "messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "a lot"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "regex"}}}, "output_config.format"),
        ({"temperature": 1.5}, "temperature"),
    ],
)
def test_what_is_wrong_or_not_served_is_refused_by_name_in_the_protocol_s_shape(
    gateway: Gateway, body: Json, named: str
) -> None:
    error = refusal(gateway, ASK | body, 400)
    assert error["type"] == "invalid_request_error" and error["message"].startswith(named)


def test_failures_have_the_protocol_s_types(ensemble: Ensemble, gateway: Gateway, start: Callable[..., Gateway]) -> None:
    assert refusal(gateway, ASK | {"model": "x"}, 404)["type"] == "not_found_error"
    ensemble.reply = lambda request: (500, "INTERNAL [engine_failed]: no")
    assert refusal(gateway, ASK, 500)["type"] == "api_error"
    assert refusal(start(max_body_bytes=10), ASK, 413)["type"] == "request_too_large"
    ensemble.reply = lambda request: [piece("Hel"), {"error": "INTERNAL [engine_failed]: no"}]
    assert events(gateway)[-1] == {"type": "error", "error": {"type": "api_error", "message": "no"}}
    ensemble.reply = lambda request: (503, "UNAVAILABLE [overloaded]: full")
    for _ in range(2):  # of the server, and of the gateway, which does not ask it again
        assert refusal(gateway, ASK, 503)["type"] == "overloaded_error"


def test_a_key_may_come_as_anthropic_s_clients_send_it(start: Callable[..., Gateway]) -> None:
    gateway = start(api_keys=("k",))
    assert gateway.post("messages", ASK, **{"x-api-key": "k"}).status_code == 200
    assert gateway.post("messages", ASK, authorization="Bearer k").status_code == 200
    assert refusal(gateway, ASK, 401, **{"x-api-key": "x"})["type"] == "authentication_error"
    assert refusal(gateway, ASK, 401)["type"] == "authentication_error"
    assert gateway.post("messages", ASK, **{"x-api-key": "k", "authorization": "Bearer x"}).status_code == 401


def count(gateway: Gateway, **body: Any) -> int:
    response = gateway.post("messages/count_tokens", {name: ASK[name] for name in ("model", "messages")} | body)
    assert response.status_code == 200, response.text
    (found,) = response.json().items()
    assert found[0] == "input_tokens" and isinstance(found[1], int)
    return found[1]


def test_tokens_are_counted_of_the_prompt_that_a_message_would_have(gateway: Gateway) -> None:
    body = {"system": "Be brief.", "tools": [TOOL], "tool_choice": {"type": "any"}, "thinking": {"type": "disabled"}}
    found, asked = count(gateway, **body), sent(gateway, **body)
    (told,) = gateway.ensemble.tokenized
    assert found == 1 + len(told["messages"])  # of the stand-in: a token a byte, and one in front
    names = ("messages", "tools", "tool_choice", "enable_thinking")
    assert {name: told[name] for name in names} == {name: asked[name] for name in names}
    assert not told.keys() & {"max_tokens", "temperature"}


def test_tokens_are_counted_of_a_body_that_asks_for_an_answer_too(gateway: Gateway) -> None:
    assert count(gateway, max_tokens=5, stream=True, temperature=0.5, stop_sequences=["x"]) == count(gateway)
    assert not gateway.ensemble.requests


def test_tokens_are_counted_for_a_model_that_does_not_think_too(ensemble: Ensemble, gateway: Gateway) -> None:
    plain = ensemble.tokens
    refused = httpx.Response(400, json={"error": "INVALID_ARGUMENT [unsupported enable_thinking]: no"})
    ensemble.tokens = lambda request: refused if "enable_thinking" in request else plain(request)
    assert count(gateway, thinking={"type": "enabled", "budget_tokens": 2000}) == count(gateway)


def test_what_cannot_be_counted_is_refused_in_the_protocol_s_shape(
    ensemble: Ensemble, gateway: Gateway, start: Callable[..., Gateway]
) -> None:
    path = "messages/count_tokens"
    assert refusal(gateway, ASK | {"model": "x"}, 404, path=path)["type"] == "not_found_error"
    assert refusal(gateway, ASK | {"messages": []}, 400, path=path)["message"].startswith("messages")
    empty = ASK | {"messages": [{"role": "user", "content": []}]}
    assert refusal(gateway, empty, 400, path=path) == refusal(gateway, empty, 400)
    assert refusal(start(api_keys=("k",)), ASK, 401, path=path)["type"] == "authentication_error"
    ensemble.tokens = lambda request: httpx.Response(400, json={"error": "INVALID_ARGUMENT [too_long prompt]: 9 bytes"})
    assert refusal(gateway, ASK, 400, path=path)["message"].startswith("messages")
