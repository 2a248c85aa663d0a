"""Failures have OpenAI's shape and the right status, before an answer and in it. Run: pytest tests/gateway/test_errors.py"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.ensemble import CHAT, COMPLETION, Gateway, answer, error_of, piece

Start = Callable[..., Gateway]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "status", "code", "retry"),
    [
        ((400, "INVALID_ARGUMENT [too_long prompt]: prompt has 9 tokens"), 400, "context_length_exceeded", False),
        ((400, "UNAVAILABLE [overloaded]: 256 requests wait already"), 503, "overloaded", True),
        ((400, "INVALID_ARGUMENT [of_a_later_server]: no"), 400, None, False),
        ((400, "UNAVAILABLE [of_a_later_server]: no"), 503, "overloaded", True),
        ((400, "INVALID_ARGUMENT: temperature is 9"), 400, None, False),  # the rest: of earlier servers, or of Triton
        ((400, "UNAVAILABLE: 256 requests wait already"), 503, "overloaded", True),
        ((503, "no room"), 503, "overloaded", True),
        ((404, "unknown model"), 503, "not_ready", True),
        ((500, "INTERNAL: broken"), 500, None, False),
        ((400, "in ensemble 'triune', Stub process 'generate_0_0' is not healthy."), 503, "interrupted", True),
    ],
)
def test_what_the_server_says_becomes_a_status(
    gateway: Gateway, said: tuple[int, str], status: int, code: str | None, retry: bool, stream: bool
) -> None:
    gateway.ensemble.reply = lambda request: said
    response = gateway.post("chat/completions", CHAT | {"stream": stream})
    assert response.status_code == status
    assert error_of(response)["code"] == code
    assert ("retry-after" in response.headers) == retry
    assert (error_of(response)["type"] == "server_error") == (status >= 500)


def test_a_failure_of_one_choice_is_the_answers(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: answer("x") if request["seed"] == 1 else (503, "no room")
    assert gateway.error("chat/completions", CHAT | {"n": 3, "seed": 1}, 503)["code"] == "overloaded"


def test_a_stream_that_breaks_ends_with_an_error_event(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [piece("Hel", num_input_tokens=5), {"error": "INTERNAL: broken"}]
    *events, last = gateway.events("chat/completions", CHAT)
    assert events[1]["choices"][0]["delta"] == {"content": "Hel"}
    assert last["error"]["type"] == "server_error"
    assert "broken" in last["error"]["message"]


def test_an_answer_that_breaks_is_an_error_as_a_whole(gateway: Gateway) -> None:
    gateway.ensemble.reply = lambda request: [piece("Hel"), {"error": "INTERNAL: broken"}]
    gateway.error("chat/completions", CHAT, 500)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "messages"])
@pytest.mark.parametrize(
    "left",
    [
        [piece("Hel")],  # the stream closes without its end
        [piece("Hel"), {"error": "Stub process 'generate_0_0' is not healthy."}],
        [piece("Hel"), {"error": "UNAVAILABLE [stopping]: the server is stopping"}],
        [piece("Hel"), piece("", "cancelled")],
    ],
    ids=["closed", "stub", "stopping", "cancelled"],
)
def test_whose_server_ends_under_them_may_ask_again(gateway: Gateway, path: str, left: list[Any]) -> None:
    gateway.ensemble.reply = lambda request: left
    asked = {"responses": {"model": "triune", "input": "Hi"}, "messages": CHAT | {"max_tokens": 9}, "completions": COMPLETION}
    body = asked.get(path, CHAT)
    whole = gateway.post(path, body)
    assert (whole.status_code, whole.headers.get("retry-after")) == (503, "1"), whole.text
    streamed = gateway.post(path, body | {"stream": True})
    assert (streamed.status_code, "retry-after" in streamed.headers) == (200, False)  # it had begun: an event tells the rest
    told = {"responses": "response.failed", "messages": "overloaded_error"}.get(path, "server_error")
    assert told in streamed.text.removesuffix("data: [DONE]\n\n").split("\n\n")[-2]


@pytest.mark.parametrize(("reason", "status"), [("cancelled", 503), ("deadline", 504), ("error", 500)])
def test_an_answer_that_was_ended_early_does_not_look_finished(gateway: Gateway, reason: str, status: int) -> None:
    gateway.ensemble.reply = lambda request: answer("x", reason=reason)
    gateway.error("chat/completions", CHAT, status)
    assert "error" in gateway.events("completions", COMPLETION)[-1]


def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    for path, body in (("chat/completions", CHAT), ("completions", COMPLETION)):
        assert gateway.error(path, body | {"model": "gpt-5"}, 404)["code"] == "model_not_found"
    assert error_of(gateway.http.get("/v1/models/gpt-5"))["code"] == "model_not_found"
    gateway.error("completions", COMPLETION | {"model": "\ud800"}, 404)


def test_an_unknown_path_or_method_is_an_error_in_the_same_shape(gateway: Gateway) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("POST", "/nothing", 404)):
        response = gateway.http.request(method, path)
        assert response.status_code == status
        assert path in error_of(response)["message"]


def test_a_bug_of_ours_is_an_error_in_the_same_shape(gateway: Gateway) -> None:
    def fail(request: Any) -> Any:
        raise RuntimeError("a bug")

    gateway.ensemble.reply = fail
    assert "a bug" not in gateway.error("chat/completions", CHAT, 500)["message"]


def test_a_body_that_is_too_large_is_refused_whether_or_not_it_says_so(start: Start) -> None:
    gateway = start(max_body_bytes=1000)
    body = b'{"model": "triune", "prompt": "' + b"x" * 1000 + b'"}'
    json = {"content-type": "application/json"}

    def pieces() -> Iterator[bytes]:
        yield body[:900]
        yield body[900:]

    for content in (body, pieces()):
        response = gateway.http.post("/v1/completions", content=content, headers=json)
        assert response.status_code == 413, response.text
        assert "1,000 bytes" in error_of(response)["message"]
    gateway.complete(prompt="x" * 900)


def test_only_holders_of_a_key_are_served(start: Start) -> None:
    gateway = start(api_keys=("one", "two ü"))
    for wrong in ({}, {"authorization": "Bearer three"}, {"authorization": "Basic one"}, {"authorization": "one"}):
        error = gateway.error("chat/completions", CHAT, 401, **wrong)
        assert (error["code"], error["type"]) == ("invalid_api_key", "authentication_error")
        assert gateway.http.get("/v1/models", headers=wrong).status_code == 401
    assert gateway.post("chat/completions", CHAT).headers["www-authenticate"] == "Bearer"
    for right in (b"Bearer one", b"bearer two \xc3\xbc"):
        assert gateway.http.get("/v1/models", headers={b"authorization": right}).status_code == 200
    assert gateway.http.get("/health").status_code == gateway.http.get("/").status_code == 200


def test_too_many_requests_at_once_are_turned_away(start: Start) -> None:
    gateway = start(max_requests=0)
    response = gateway.post("chat/completions", CHAT)
    assert response.status_code == 429
    assert error_of(response)["type"] == "rate_limit_error"
    assert int(response.headers["retry-after"]) >= 1


def test_pages_elsewhere_may_call_only_if_they_are_allowed(start: Start) -> None:
    ask = {"origin": "https://a.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in start().http.get("/v1/models", headers=ask).headers
    gateway = start(allowed_origins=("https://a.example",), api_keys=("k",))
    assert gateway.http.options("/v1/models", headers=ask).headers["access-control-allow-origin"] == "https://a.example"
    assert (
        "access-control-allow-origin"
        not in gateway.http.get("/v1/models", headers=ask | {"origin": "https://b.example"}).headers
    )


def test_health_is_the_servers(gateway: Gateway) -> None:
    assert gateway.http.get("/health").json() == {"status": "ready"}
    gateway.ensemble.ready = False
    assert gateway.http.get("/health").status_code == 503


def test_metrics_count_requests_tokens_and_failures(gateway: Gateway) -> None:
    gateway.chat()
    gateway.events("completions", COMPLETION)
    gateway.post("completions", {})
    text = gateway.http.get("/metrics").text
    for line in (
        'triune_openai_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0',
        'triune_openai_requests_total{endpoint="/v1/completions",status="200"} 1.0',
        'triune_openai_requests_total{endpoint="/v1/completions",status="400"} 1.0',
        'triune_openai_tokens_total{kind="completion"} 6.0',
        'triune_openai_request_seconds_count{endpoint="/v1/completions"} 2.0',
        "triune_openai_first_chunk_seconds_count 2.0",
        'triune_openai_open_answers{stream="true"} 0.0',
    ):
        assert line in text
