"""/v1/responses: what is asked of the server, and what is refused. Run: pytest tests/gateway/test_responses.py"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.ensemble import Ensemble, Gateway, answer, piece

Json = dict[str, Any]
ASK: Json = {"model": "triune", "input": "Hi"}
TOOL: Json = {"type": "function", "name": "weather", "description": "asks", "parameters": {"type": "object"}, "strict": True}
USER = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "18 °C"}
TOLD = {"role": "tool", "content": "18 °C", "tool_call_id": "call_1"}


def respond(gateway: Gateway, **body: Any) -> Json:
    response = gateway.post("responses", ASK | body)
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


def sent(gateway: Gateway, **body: Any) -> Json:
    respond(gateway, **body)
    return gateway.ensemble.requests[-1]


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [USER]),
        ([USER], [USER]),
        ([{"type": "message", "role": "developer", "content": "Be brief."}], [{"role": "system", "content": "Be brief."}]),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "H"}, {"type": "input_text", "text": "i"}]}],
            [USER],
        ),
        (
            [{"role": "assistant", "content": [{"type": "output_text", "text": "A"}, {"type": "refusal", "refusal": "B"}]}],
            [{"role": "assistant", "content": "AB"}],
        ),
        ([USER, CALL, OUTPUT], [USER, {"role": "assistant", "content": "", "tool_calls": [CALLED]}, TOLD]),
        (
            [CALL, OUTPUT | {"output": [{"type": "input_text", "text": "18 °C"}]}],
            [{"role": "assistant", "content": "", "tool_calls": [CALLED]}, TOLD],
        ),
        (  # one turn of the assistant is one message
            [{"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
             {"role": "assistant", "content": "Let me see."}, CALL, CALL | {"call_id": "call_2"}],
            [{"role": "assistant", "content": "Let me see.", "reasoning_content": "hm",
              "tool_calls": [CALLED, CALLED | {"id": "call_2"}]}],
        ),
        (  # thinking begins one, and so does a text after a text
            [{"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"},
             {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
            [{"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"},
             {"role": "assistant", "content": "", "reasoning_content": "hm"}],
        ),
        (  # as the package openai dumps what it has read
            [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "phase": None,
              "content": [{"type": "output_text", "text": "A", "annotations": [], "logprobs": []}]}],
            [{"role": "assistant", "content": "A"}],
        ),
    ],
)  # fmt: skip
def test_items_are_the_conversation_of_a_chat(gateway: Gateway, items: Any, messages: list[Json]) -> None:
    asked = json.loads(sent(gateway, input=items)["messages"])
    assert asked == [{"role": m["role"], "content": m["content"], **m} for m in messages]


def test_instructions_are_a_system_message(gateway: Gateway) -> None:
    assert json.loads(sent(gateway, instructions="Be brief.")["messages"]) == [{"role": "system", "content": "Be brief."}, USER]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"max_output_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3, "top_k": 4, "stop": ["x"]},
         {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3, "top_k": 4, "stop": ["x"]}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}}},
         {"response_format": {
             "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}}),
        ({"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
         {"tools": [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}],
          "tool_choice": "required", "parallel_tool_calls": False}),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
         {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        ({"tools": [TOOL, TOOL | {"name": "other"}], "tool_choice": {
            "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}},
         {"tools": [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}],
          "tool_choice": "required"}),
    ],
)  # fmt: skip
def test_what_is_asked_reaches_the_server(gateway: Gateway, body: Json, wanted: Json) -> None:
    request = sent(gateway, **body)
    for name, value in wanted.items():
        found = request[name]
        assert (json.loads(found) if isinstance(value, dict) or name in ("tools",) else found) == value


def test_what_asks_for_what_happens_anyway_changes_nothing(gateway: Gateway) -> None:
    plain = sent(gateway)
    harmless = sent(
        gateway, store=False, background=False, truncation="auto", metadata={"a": "b"}, user="u", service_tier="auto",
        safety_identifier="s", prompt_cache_key="k", prompt_cache_retention="24h", max_tool_calls=3, tools=[],
        tool_choice="auto",
        parallel_tool_calls=True, text={"format": {"type": "text"}, "verbosity": "medium"}, conversation=None,
        reasoning={"effort": None, "summary": "auto"},
        include=["reasoning.encrypted_content", "web_search_call.action.sources"],
    )  # fmt: skip
    assert json.loads(harmless.pop("response_format")) == {"type": "text"}
    assert {**harmless, "id": ""} == {**plain, "id": ""}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"background": True}, "background", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "x"}]}, "tools[1].type", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         "input[0].content[0]", "unsupported_parameter"),
        ({"input": [USER, {"type": "web_search_call", "id": "ws_1"}]}, "input[1].type", "unsupported_parameter"),
        ({"input": [USER | {"mystery": 1}]}, "input[0].mystery", "unknown_parameter"),
        ({"input": [{"type": "function_call", "name": "x", "arguments": "{}"}]}, "input[0].call_id",
         "missing_required_parameter"),
        ({"input": [OUTPUT]}, "input", None),
        ({"input": []}, "input", None),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": "\ud800"}, "input", None),
        ({"instructions": "\ud800"}, "instructions", None),
        ({"input": [{"type": "reasoning", "encrypted_content": "gAAAA"}]}, "input[0].encrypted_content",
         "invalid_encrypted_content"),
        ({"reasoning": {"effort": "a lot"}}, "reasoning.effort", "invalid_value"),
        ({"reasoning": {"effort": "low"}, "thinking_budget": 3}, "reasoning.effort", None),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options", None),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "invalid_value"),
        ({"include": ["mystery"]}, "include[0]", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_served_is_refused_by_name(gateway: Gateway, body: Json, param: str, code: str | None) -> None:
    error = gateway.error("responses", ASK | body, 400)
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(
    ("named", "body", "param"),
    [
        ("max_tokens", {"max_output_tokens": 5}, "max_output_tokens"),
        ("response_format", {"text": {"format": {"type": "x"}}}, "text.format"),
        ("prompt", {}, "input"),
        ("messages[0].content", {}, "input[0].content"),
        ("enable_thinking", {"reasoning": {"effort": "none"}}, "reasoning.effort"),
    ],
)
def test_what_the_server_refuses_is_named_as_the_client_sent_it(gateway: Gateway, named: str, body: Json, param: str) -> None:
    gateway.ensemble.reply = lambda request: (400, f"INVALID_ARGUMENT [invalid_value {named}]: no")
    assert gateway.error("responses", ASK | body, 400)["param"] == param


def test_an_unknown_model_is_refused(gateway: Gateway) -> None:
    assert gateway.error("responses", ASK | {"model": "gpt-9"}, 404)["code"] == "model_not_found"


def test_an_answer_says_what_it_was_made_with(gateway: Gateway) -> None:
    asked = {
        "instructions": "x",
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "tools": [TOOL],
        "tool_choice": "auto",
        "user": "u",
    }
    found = respond(gateway, **asked)
    assert {name: found[name] for name in asked} == asked
    assert (found["object"], found["status"], found["store"]) == ("response", "completed", True)
    assert found["usage"] == {
        "input_tokens": 5, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 8,
    }  # fmt: skip


def test_a_cut_answer_is_incomplete_and_says_why(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: answer("Hel", "lo", reason="length")
    found = respond(gateway)
    assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert found["output"][0]["status"] == "incomplete"


def test_an_answer_cut_in_its_thinking_has_no_message(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: [piece(reasoning_output="hm"), piece("", "length")]
    assert [(item["type"], item["status"]) for item in respond(gateway)["output"]] == [("reasoning", "incomplete")]


def test_an_answer_without_words_is_an_empty_message(ensemble: Ensemble, gateway: Gateway) -> None:
    ensemble.reply = lambda request: answer("")
    (item,) = respond(gateway)["output"]
    assert item["content"][0]["text"] == "" and item["status"] == "completed"


@pytest.mark.parametrize("summary", [None, "auto"])
def test_thinking_is_an_item_with_content_or_a_summary_and_can_be_carried(
    ensemble: Ensemble, gateway: Gateway, summary: str | None
) -> None:
    ensemble.reply = lambda request: [piece(reasoning_output="hm é"), *answer("Yes")]
    thought, _ = respond(gateway, reasoning={"summary": summary}, include=["reasoning.encrypted_content"])["output"]
    content = [{"type": "reasoning_text", "text": "hm é"}]
    summed = [{"type": "summary_text", "text": "hm é"}]
    assert (thought["summary"], thought.get("content")) == (([], content) if summary is None else (summed, None))
    only = {"type": "reasoning", "summary": [], "encrypted_content": thought["encrypted_content"]}
    for carried in (thought, only):
        messages = json.loads(sent(gateway, input=[USER, carried, CALL, OUTPUT])["messages"])
        assert messages[1]["reasoning_content"] == "hm é"


def test_log_probabilities_are_of_the_message(ensemble: Ensemble, gateway: Gateway) -> None:
    def entry(token: int) -> str:
        return json.dumps([{"token_id": token, "logprob": -0.5, "bytes": [64 + token], "top": [], "top_bytes": []}])

    ensemble.reply = lambda request: [
        piece(reasoning_output="t", logprobs=entry(1)), piece("", logprobs=entry(2)), piece("C", logprobs=entry(3)),
        piece("", "stop", logprobs=entry(4)),
    ]  # fmt: skip
    _, message = respond(gateway, include=["message.output_text.logprobs"])["output"]
    assert [one["token"] for one in message["content"][0]["logprobs"]][-2:] == ["C", "D"]
