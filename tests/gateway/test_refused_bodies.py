"""What is wrong with a body is said of what the client sent. Run: pytest tests/gateway/test_refused_bodies.py"""

from __future__ import annotations

from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Gateway, error_of, piece


def refused(gateway: Gateway, body: bytes, content_type: str = "application/json") -> str:
    response = gateway.http.post("/v1/chat/completions", content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    return str(error_of(response)["message"])


@pytest.mark.parametrize("name", ["int", "str", "bool", "float", "a[b]", "list[str]", "\u2028"])
def test_an_unknown_field_is_named_whatever_its_name(gateway: Gateway, name: str) -> None:
    error = error_of(gateway.post("chat/completions", CHAT | {name: 1}))
    assert (error["param"], error["code"]) == (name, "unknown_parameter")
    message = {"role": "user", "content": "a", name: 1}
    error = error_of(gateway.post("chat/completions", CHAT | {"messages": [message]}))
    assert (error["param"], error["code"]) == (f"messages[0].{name}", "unknown_parameter")


def test_a_bound_is_said_exactly(gateway: Gateway) -> None:
    error = error_of(gateway.post("chat/completions", CHAT | {"seed": 2**64}))
    assert error["message"].count(str(2**64 - 1)) == 1 and error["message"].count(str(2**64)) == 1
    error = error_of(gateway.post("chat/completions", CHAT | {"seed": -(2**63) - 1}))
    assert str(-(2**63)) in error["message"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"model": "\xff"}', "is not UTF-8: invalid start byte at byte 11"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "has a number of too many digits"),
        (b"{", "is not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(gateway: Gateway, body: bytes, why: str) -> None:
    assert why in refused(gateway, body)


@pytest.mark.parametrize("kind", ["application/jsonp", "application/json-seq", "application/x-ndjson", "text/json", ""])
def test_a_content_type_that_is_not_json_is_the_cause(gateway: Gateway, kind: str) -> None:
    assert f"Content-Type is {kind!r}" in refused(gateway, b'{"model": "triune"}', kind)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"])
def test_a_content_type_that_is_json_is_not(gateway: Gateway, kind: str) -> None:
    assert "must be a JSON object" in refused(gateway, b"[]", kind)


@pytest.mark.parametrize("tool", [{}, {"type": "web_search"}, {"type": "function", "function": {"name": 5}}, {"function": "f"}])
def test_a_tool_that_is_no_function_is_named_by_its_place(gateway: Gateway, tool: Any) -> None:
    good = {"type": "function", "function": {"name": "f"}}
    error = error_of(gateway.post("chat/completions", CHAT | {"tools": [good, tool]}))
    assert error["param"] == "tools[1]" and '"type": "function"' in error["message"]
    response = gateway.http.post("/tokenize", json={"messages": CHAT["messages"], "tools": [tool]})
    assert response.status_code == 400 and error_of(response)["param"] == "tools[0]"


@pytest.mark.parametrize(("prompt", "param"), [([[1], [999]], "prompt[1][0]"), ([999], "prompt[0]"), ([[999]], "prompt[0][0]")])
def test_a_token_that_the_server_refuses_is_named_by_its_prompt(gateway: Gateway, prompt: Any, param: str) -> None:
    def reply(request: dict[str, Any]) -> Any:
        if request["prompt_token_ids"] == [999]:
            return 400, "INVALID_ARGUMENT [invalid_value prompt_token_ids[0]]: prompt_token_ids[0] is 999"
        return [piece("a", "stop")]

    gateway.ensemble.reply = reply
    assert error_of(gateway.post("completions", COMPLETION | {"prompt": prompt}))["param"] == param
