"""What is not served or not right is refused by name, in OpenAI's shape. Run: pytest tests/gateway/test_refusals.py"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.ensemble import CHAT, COMPLETION, Gateway, error_of

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"best_of": 2}, "best_of"),
        (user([IMAGE]), "messages[0].content[0]"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages[0]"),
    ],
)
def test_what_a_chat_cannot_do_is_refused_by_name(gateway: Gateway, body: dict[str, Any], param: str) -> None:
    error = gateway.error("chat/completions", CHAT | body, 400)
    assert (error["param"], error["code"], error["type"]) == (param, "unsupported_parameter", "invalid_request_error")
    assert param in error["message"]
    assert not gateway.ensemble.requests


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": "."}, "suffix"),
        ({"best_of": 3, "n": 2}, "best_of"),
    ],
)
def test_what_a_completion_cannot_do_is_refused_by_name(gateway: Gateway, body: dict[str, Any], param: str) -> None:
    error = gateway.error("completions", COMPLETION | body, 400)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


def test_asking_for_what_happens_anyway_is_no_reason_to_refuse(gateway: Gateway) -> None:
    gateway.chat(
        response_format={"type": "text"}, tools=[], tool_choice="none", modalities=["text"], store=False, best_of=2, n=2,
        parallel_tool_calls=True, functions=[], function_call="none", reasoning_effort="none",
    )  # fmt: skip
    gateway.complete(suffix="", best_of=1)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood", "unknown_parameter"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 2**31}, "max_tokens", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"one": 1}}, "logit_bias.one", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        (user(3), "messages[0].content", "invalid_type"),
    ],
)
def test_a_wrong_field_is_named(gateway: Gateway, body: dict[str, Any], param: str, code: str) -> None:
    error = gateway.error("chat/completions", CHAT | body, 400)
    assert (error["param"], error["code"]) == (param, code)
    assert f"'{param}'" in error["message"]


@pytest.mark.parametrize("name", ["model", "messages"])
def test_a_missing_field_is_named(gateway: Gateway, name: str) -> None:
    body = {key: value for key, value in CHAT.items() if key != name}
    error = gateway.error("chat/completions", body, 400)
    assert (error["param"], error["code"]) == (name, "missing_required_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"enable_thinking": True, "reasoning_effort": "none"}, "reasoning_effort"),
        ({"enable_thinking": False, "reasoning_effort": "low"}, "reasoning_effort"),
        ({"thinking_budget": 9, "reasoning_effort": "low"}, "reasoning_effort"),
        ({"thinking_budget": 9, "reasoning_effort": "none"}, "reasoning_effort"),
        ({"reasoning_effort": "a lot"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"n": 33}, "n"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "a"}}, "structured_outputs"),
        ({"response_format": {"type": "regex", "regex": "\ud800"}}, "response_format"),
        ({"tools": [TOOL | {"x": "\udc00"}]}, "tools"),
        ({"min_tokens": 5, "stop": ["\ud800"]}, "stop"),
        (user("half \udc00"), "messages[0].content"),
    ],
)
def test_what_contradicts_itself_is_refused(gateway: Gateway, body: dict[str, Any], param: str) -> None:
    assert gateway.error("chat/completions", CHAT | body, 400)["param"] == param


def test_an_empty_prompt_is_refused(gateway: Gateway) -> None:
    for prompt, param in (("", "prompt"), ([], "prompt"), (["a", ""], "prompt[1]"), ([[1], []], "prompt[1]")):
        assert gateway.error("completions", COMPLETION | {"prompt": prompt}, 400)["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"model": NaN}'])
def test_a_body_that_is_no_object_is_refused(gateway: Gateway, body: bytes) -> None:
    response = gateway.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error_of(response)


def test_another_content_type_is_named(gateway: Gateway) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = gateway.http.post("/v1/chat/completions", content=b'{"model": "triune"}', headers=headers)
    assert response.status_code == 400
    assert "application/json" in error_of(response)["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    "messages prompt n seed stop temperature top_p logit_bias logprobs top_logprobs stream tools tool_choice response_format "
    "structured_outputs parallel_tool_calls "
    "max_tokens max_completion_tokens echo suffix best_of stream_options "
    "reasoning_effort chat_template_kwargs user metadata mystery".split()
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["chat/completions", "completions"]),
    fields=st.dictionaries(NAMES, JSON, max_size=4),
    whole=st.booleans(),
)
def test_no_body_makes_the_gateway_fail(gateway: Gateway, path: str, fields: dict[str, Any], whole: bool) -> None:
    body = ((CHAT if path.startswith("chat") else COMPLETION) if whole else {"model": "triune"}) | fields
    response = gateway.post(path, body)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        error_of(response)
