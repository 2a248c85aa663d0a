"""Every request has an id, which its client gets and the access log names. Run: pytest tests/gateway/test_access_log.py"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.ensemble import Ensemble, Gateway, answer
from triune_gateway import access_log
from triune_gateway.access_log import AccessLog

CHAT = {"model": "triune", "messages": [{"role": "user", "content": "SECRET"}]}
COMPLETION = {"model": "triune", "prompt": "SECRET"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "access.jsonl"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/nowhere", "/health", "/metrics", "/"])
def test_the_id_that_a_client_sends_comes_back_on_every_path(gateway: Gateway, path: str) -> None:
    assert gateway.http.get(path, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_a_request_without_an_id_gets_one_of_its_own(gateway: Gateway) -> None:
    found = {gateway.http.get("/v1/models").headers["x-request-id"] for _ in range(3)}
    assert len(found) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_no_answer_has_headers_of_those_before_it(gateway: Gateway, stream: bool) -> None:
    asked = [
        gateway.http.post("/v1/chat/completions", json=CHAT | {"stream": stream}, headers=headers)
        for headers in (
            {"x-request-id": "one", "origin": "http://localhost:3000"},
            {"x-request-id": "two"},
            {"x-request-id": "three"},
        )
    ]
    ours = ("x-request-id", "access-")
    found = [[(name, value) for name, value in one.headers.multi_items() if name.startswith(ours)] for one in asked]
    assert found[1:] == [[("x-request-id", "two")], [("x-request-id", "three")]]
    assert len({len(one.headers.raw) for one in asked[1:]}) == 1


@given(st.binary(max_size=200))
def test_an_id_is_taken_over_only_where_headers_and_logs_can_hold_it(sent: bytes) -> None:
    scope = {"headers": [(b"x-request-id", sent)], "method": "GET", "path": "/"}
    found = access_log.begin(scope).request_id
    usable = 0 < len(sent) <= 128 and all(33 <= byte <= 126 for byte in sent)
    assert (found == sent.decode("latin-1")) == usable
    assert found.isascii() and found.isprintable() and found


@pytest.mark.parametrize("stream", [False, True])
def test_a_line_says_who_asked_what_for_how_long_and_no_word_of_it(
    start: Callable[..., Gateway], ensemble: Ensemble, log: Path, stream: bool
) -> None:
    ensemble.reply = lambda request: answer("HIDDEN")
    gateway = start(access_log=str(log))
    gateway.http.post("/v1/chat/completions", json=CHAT | {"stream": stream}, headers={"x-request-id": "abc"})
    [line] = lines(log)
    assert (line["request_id"], line["method"], line["path"], line["status"]) == ("abc", "POST", "/v1/chat/completions", 200)
    assert (line["model"], line["stream"], line["finish_reasons"]) == ("triune", stream, ["stop"])
    assert line["completion_tokens"] > 0 and 0 <= line["first_chunk_s"] <= line["seconds"]
    assert "SECRET" not in log.read_text() and "HIDDEN" not in log.read_text()


def test_refused_requests_have_lines_too(start: Callable[..., Gateway], ensemble: Ensemble, log: Path) -> None:
    gateway = start(access_log=str(log), api_keys=("k",))
    gateway.http.post("/v1/completions", json=COMPLETION)
    gateway.http.headers["authorization"] = "Bearer k"
    gateway.http.post("/v1/completions", json=COMPLETION | {"model": "other"})
    ensemble.reply = lambda request: (503, "UNAVAILABLE [overloaded]: the queue is full")
    gateway.http.post("/v1/completions", json=COMPLETION)
    assert [line["status"] for line in lines(log)] == [401, 404, 503]
    assert lines(log)[2]["error"] == "overloaded"
    assert "Bearer" not in log.read_text()


def test_the_server_gets_an_id_that_no_other_request_has(gateway: Gateway, ensemble: Ensemble) -> None:
    ensemble.reply = lambda request: answer("hi")
    for _ in range(2):
        gateway.http.post("/v1/completions", json=COMPLETION | {"prompt": ["a", "b"]}, headers={"x-request-id": "same"})
    ids = [request["id"] for request in ensemble.requests]
    assert len(set(ids)) == 4 and all(one.startswith("same/") for one in ids)


def test_a_log_that_cannot_be_written_any_more_ends_nothing(start: Callable[..., Gateway]) -> None:
    gateway = start(access_log="/dev/full")
    assert gateway.http.get("/v1/models").status_code == 200


def test_a_log_that_cannot_be_begun_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        AccessLog(str(tmp_path))


def test_pages_elsewhere_may_call_with_any_header_and_read_the_id(start: Callable[..., Gateway]) -> None:
    gateway = start(allowed_origins=("https://page.test",))
    asked = {"origin": "https://page.test", "access-control-request-method": "POST",
             "access-control-request-headers": "authorization,content-type,x-stainless-os"}  # fmt: skip
    preflight = gateway.http.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 200
    assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
    found = gateway.http.get("/v1/models", headers={"origin": "https://page.test"}).headers
    assert found["access-control-allow-origin"] == "https://page.test"
    assert "x-request-id" in found["access-control-expose-headers"]
    assert "access-control-allow-origin" not in gateway.http.get("/v1/models", headers={"origin": "https://evil.test"}).headers


def test_events_hold_no_line_end_of_unicode(gateway: Gateway, ensemble: Ensemble) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    ensemble.reply = lambda request: answer(text)
    reply = gateway.http.post("/v1/completions", json=COMPLETION | {"stream": True})
    events = [line[6:] for line in reply.content.decode().splitlines() if line]  # as Unicode has lines
    assert "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]) == text
