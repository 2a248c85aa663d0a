"""Whatever is sent, the server says what is wrong and serves on. Run: pytest tests/e2e/test_bad_inputs.py"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from support.bad_requests import GENERATE, GOOD, OVER_HTTP, with_good
from support.real_server import RealServer

pytestmark = pytest.mark.triton


def processes(server: RealServer) -> set[int]:
    return {p.pid for p in psutil.Process(server.process.pid).children(recursive=True)}


@pytest.fixture(scope="module", autouse=True)
def loses_nothing(server: RealServer) -> Iterator[None]:
    """At the end no slot is held, and nothing was started again: the processes are those from before."""
    before = processes(server)
    yield
    server.wait_idle()
    assert processes(server) == before, "a bad input ended a process of the server"


@pytest.fixture(autouse=True)
def serves_on(server: RealServer) -> Iterator[None]:
    yield
    assert server.generate(**GOOD).json()["text_output"].startswith(" Paris")


@pytest.mark.parametrize("name", OVER_HTTP)
def test_a_bad_request_is_answered_with_its_reason(server: RealServer, name: str) -> None:
    body, statuses, message = OVER_HTTP[name]
    reply = httpx.post(server.url + GENERATE, content=body, timeout=20)
    assert reply.status_code in statuses, reply.text[:500]
    error = reply.json()["error"]
    assert message in error
    assert "Traceback" not in error and ".py" not in error, "an error shows the server's insides"


@pytest.mark.parametrize("name", [name for name in OVER_HTTP if OVER_HTTP[name][1] == (400,)])
def test_a_bad_stream_is_answered_with_its_reason(server: RealServer, name: str) -> None:
    body, statuses, message = OVER_HTTP[name]
    reply = httpx.post(server.url + GENERATE + "_stream", content=body, timeout=20)
    assert reply.status_code in statuses
    error = json.loads(reply.text.removeprefix("data: "))["error"]
    assert message in error


def test_many_and_long_stops_and_bad_words_harm_nobody(server: RealServer) -> None:
    for fields in (
        {"stop": [f"stop {i}" for i in range(64)]},
        {"bad_words": [f"bad {i}" for i in range(1_000)]},
        {"stop": ["x" * 256]},
    ):
        assert server.generate(**GOOD | fields).json()["text_output"].startswith(" Paris"), list(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": [f"stop {i}" for i in range(1_000)]}, "stop has 1,000 entries; at most 64"),
        ({"stop_words": ["x" * 1_000_000]}, "at most 256 bytes are expected"),
        ({"bad_words": [f"bad {i}" for i in range(2_000)]}, "bad_words has 2,000 entries; at most 1,024"),
        ({"bad_words": ["x" * 1_000_000]}, "at most 256 bytes are expected"),
        ({"end_id": 49_152}, "end_id is 49152"),
        ({"sampling_parameters": '{"stop_token_ids": [49152]}'}, "stop_token_ids is 49152"),
        ({"min_tokens": 9}, "min_tokens is 9; at most max_tokens"),
        ({"thinking_budget": 9}, "this model does not think"),
        ({"messages": "[]", "enable_thinking": True, "text_input": ""}, "this model does not think"),
    ],
)
def test_what_no_answer_could_honour_is_refused_by_name(server: RealServer, fields: dict[str, object], message: str) -> None:
    refused = server.generate(**GOOD | fields)
    assert refused.status_code == 400
    assert message in refused.json()["error"]


def test_what_is_not_there_is_404_and_what_cannot_be_done_is_said(server: RealServer) -> None:
    assert "unknown model" in httpx.post(f"{server.url}/v2/models/nope/generate", json=GOOD).json()["error"]
    assert httpx.post(f"{server.url}/v2/models/nope/generate", json=GOOD).status_code == 404
    assert httpx.post(f"{server.url}/v2/models/triune/versions/9/generate", json=GOOD).status_code == 404
    assert httpx.get(server.url + GENERATE).status_code == 405
    infer = httpx.post(f"{server.url}/v2/models/triune/infer", json={"inputs": []})
    assert infer.status_code in (400, 501) and "decoupled" in infer.json()["error"]


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("generate", {"input_ids": [10**6], "options": "{}"}, "token id 1000000"),
        ("generate", {"input_ids": [-1], "options": "{}"}, "token id -1"),
        ("generate", {"input_ids": [], "options": "{}"}, "the prompt has no tokens"),
        ("generate", {"input_ids": [1] * 9_000, "options": "{}"}, "prompt has 9,000 tokens, but this engine holds"),
        ("generate", {"input_ids": [1]}, "missing required input"),
        ("generate", {"input_ids": [1], "options": ["{}", "{}"]}, "the options name 2"),
        ("generate", {"input_ids": [1], "options": '{"params":{"top_p":7}}'}, "top_p is 7"),
        ("generate", {"input_ids": [1], "options": '{"params":{"temperature":NaN}}'}, "temperature is nan"),
        ("generate", {"input_ids": [1], "options": '{"params":{"logit_bias":[[49152,1.0]]}}'}, "token id 49152"),
        ("generate", {"input_ids": [1], "options": '{"params":{"stop":["\\ud800"]}}'}, "stop is not valid UTF-8"),
        ("generate", {"input_ids": [1], "options": "x"}, "cannot be read"),
        ("generate", {"input_ids": [1], "options": '{"params":{"max_tokens":"x"}}'}, "max_tokens is 'x'"),
        ("generate", {"input_ids": [1], "options": '{"params":{"seed":-1,"temperature":1}}'}, "seed is -1"),
        ("detokenize", {"token_ids": [10**6], "byte_range": [0, 1], "request_key": 1}, "token_ids are"),
    ],
)
def test_bad_requests_to_the_steps_themselves(server: RealServer, model: str, body: dict[str, Any], message: str) -> None:
    reply = server.generate(model, **body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]


def test_requests_that_are_not_http_or_end_early_harm_nobody(server: RealServer) -> None:
    for headers in ("Content-Length: 1000", "Content-Length: -5", "Content-Length: 99999999999999", "X: " + "x" * 200_000, ""):
        with socket.create_connection(("127.0.0.1", server.options.http_port), timeout=10) as connection:
            request = f"POST {GENERATE} HTTP/1.1\r\nHost: here\r\n{headers}\r\n\r\n{{" if headers else "hello\r\n\r\n"
            connection.sendall(request.encode())
        assert server.generate(**GOOD).status_code == 200, headers[:40]


def test_what_the_body_is_called_does_not_matter_and_compression_is_refused(server: RealServer) -> None:
    def post(**headers: str) -> httpx.Response:
        return httpx.post(server.url + GENERATE, content=with_good(), headers=headers, timeout=20)

    assert post(**{"content-type": "image/png"}).json()["num_output_tokens"] == 2
    compressed = post(**{"content-encoding": "br"})
    assert compressed.status_code == 400 and "content-encoding" in compressed.json()["error"]
