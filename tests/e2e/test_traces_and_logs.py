"""A request's spans are in its caller's trace, and its lines in the log. Run: pytest tests/e2e/test_traces_and_logs.py"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.otlp_sink import Sink
from support.real_server import REPOSITORY, RealServer, start, stop
from triune_client import Client
from triune_client.grpc import GrpcClient

pytestmark = pytest.mark.triton
STEPS = {"tokenize", "queue", "prefill", "decode", "detokenize"}
MODEL = "smollm2-135m"
WORDS = "Zanzibar is"
ASK: dict[str, Any] = {"max_tokens": 6, "ignore_eos": True}
Traced = tuple[RealServer, Sink]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A server that tells of everything."""
    with pytest.MonkeyPatch.context() as patch, Sink() as sink:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        server = start(tmp_path_factory.mktemp("traced"), REPOSITORY, f"--otlp={sink.url}", "--log-format=json")
        yield server, sink
        stop(server)


def http_whole(server: RealServer, headers: dict[str, str]) -> None:
    body = {"text_input": WORDS, "id": "http-whole", **headers, **ASK}  # Triton 24.10 hands no headers of these on
    assert httpx.post(f"{server.url}/v2/models/triune/generate", json=body).status_code == 200


def http_stream(server: RealServer, headers: dict[str, str]) -> None:
    with Client(server.url) as client:
        assert len(list(client.stream(WORDS, headers=headers, request_id="http-stream", **ASK))) > 1


def grpc_stream(server: RealServer, headers: dict[str, str]) -> None:
    with GrpcClient(server.options.grpc_url) as client:
        assert len(list(client.stream_chat(WORDS, headers=headers, request_id="grpc-stream", **ASK))) > 1


def one_answer(server: RealServer, headers: dict[str, str]) -> None:
    inputs = [("text_input", "BYTES", WORDS), ("max_tokens", "INT32", 6), ("ignore_eos", "BOOL", True)]
    tensors = [{"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, kind, value in inputs]
    body = {"id": "one-answer", "inputs": tensors}
    assert httpx.post(f"{server.url}/v2/models/triune_infer/infer", json=body, headers=headers).status_code == 200


def openai(server: RealServer, headers: dict[str, str], *, stream: bool) -> None:
    body = {"model": "triune", "messages": [{"role": "user", "content": WORDS}], "stream": stream, **ASK}
    url = f"{server.options.openai_url}/v1/chat/completions"
    assert httpx.post(url, json=body, headers=headers | {"x-request-id": f"openai-{stream}"}, timeout=60).status_code == 200


def openai_whole(server: RealServer, headers: dict[str, str]) -> None:
    openai(server, headers, stream=False)


def openai_stream(server: RealServer, headers: dict[str, str]) -> None:
    openai(server, headers, stream=True)


def lines(server: RealServer, request_id: str, count: int) -> list[dict[str, Any]]:
    """The log's lines of a request, when there are so many."""
    end = time.monotonic() + 10
    while True:
        every = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith('{"time"')]
        found = [line for line in every if line.get("request_id", "").startswith(request_id)]
        if len(found) >= count:
            assert len(found) == count
            return found
        assert time.monotonic() < end, server.log.read_text()[-2000:]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("ask", "request_id"),
    [
        (http_whole, "http-whole"), (http_stream, "http-stream"), (grpc_stream, "grpc-stream"), (one_answer, "one-answer"),
        (openai_whole, "openai-False"), (openai_stream, "openai-True"),
    ],
)  # fmt: skip
def test_all_spans_of_a_request_are_in_its_callers_trace(
    traced: Traced, ask: Callable[[RealServer, dict[str, str]], None], request_id: str
) -> None:
    server, sink = traced
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    ask(server, {"traceparent": f"00-{trace}-{caller}-01"})
    of_openai = request_id.startswith("openai")
    sink.wait(lambda: len(sink.of(trace)) >= len(STEPS) + 1 + of_openai)
    spans = sink.of(trace)
    by_name = {span.name: span for span in spans}
    assert len(by_name) == len(spans)
    request = by_name.pop(f"{'chat' if of_openai or ask is grpc_stream else 'text_completion'} {MODEL}")
    if of_openai:
        front = by_name.pop("POST /v1/chat/completions")
        assert (front.service, front.parent) == ("triune-gateway", caller)
        assert front.attributes["http.response.status_code"] == 200 and front.attributes["gen_ai.usage.output_tokens"] == 6
        assert request.parent == front.id and front.begin <= request.begin <= front.end  # it may end after its answer has gone
    else:
        assert request.parent == caller
    assert by_name.keys() == STEPS
    assert {span.parent for span in by_name.values()} == {request.id}
    assert all(request.begin <= span.begin <= span.end <= request.end for span in by_name.values())
    order = ["tokenize", "queue", "prefill", "decode"]
    assert all(by_name[a].end <= by_name[b].begin + 10**6 for a, b in itertools.pairwise(order))
    assert by_name["detokenize"].begin >= by_name["prefill"].end
    assert request.attributes["gen_ai.usage.output_tokens"] == 6
    assert request.attributes["gen_ai.usage.input_tokens"] > 0
    assert request.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert request.attributes["gen_ai.request.max_tokens"] == 6

    found = {line["source"]: line for line in lines(server, request_id, 1 + of_openai)}
    assert found.keys() == ({"server", "gateway"} if of_openai else {"server"})
    assert all(line["trace_id"] == trace and line["completion_tokens"] == 6 for line in found.values())
    line = found["server"]
    assert 0 <= line["queue_s"] <= line["first_token_s"] <= line["seconds"]
    assert line["finish_reasons"] == ["length"] and line["prompt_tokens"] == request.attributes["gen_ai.usage.input_tokens"]
    assert "Zanzibar" not in json.dumps(list(found.values()))


def test_a_trace_that_its_caller_does_not_sample_has_no_spans(traced: Traced) -> None:
    server, sink = traced
    unsampled, sampled = secrets.token_hex(16), secrets.token_hex(16)
    http_whole(server, {"traceparent": f"00-{unsampled}-{secrets.token_hex(8)}-00"})
    openai_whole(server, {"traceparent": f"00-{unsampled}-{secrets.token_hex(8)}-00"})
    openai_whole(server, {"traceparent": f"00-{sampled}-{secrets.token_hex(8)}-01"})
    sink.wait(lambda: len(sink.of(sampled)) == len(STEPS) + 2)
    assert not sink.of(unsampled)


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-zz-1-01", "éé", "x" * 5000])
def test_what_is_no_traceparent_begins_a_trace_of_its_own(traced: Traced, traceparent: str) -> None:
    server, sink = traced
    count = len(sink.spans)
    http_whole(server, {"traceparent": traceparent})
    sink.wait(lambda: len(sink.spans) >= count + len(STEPS) + 1)
    [root] = [span for span in sink.spans[count:] if not span.parent]
    assert root.name.startswith("text_completion ")


def test_refused_requests_have_lines_too(traced: Traced) -> None:
    server, _ = traced
    refused = httpx.post(f"{server.url}/v2/models/triune/generate", json={"text_input": "a", "temperature": -1, "id": "bad-1"})
    assert refused.status_code == 400
    [line] = lines(server, "bad-1", 1)
    assert (line["source"], line["error"]) == ("server", "invalid_value")


def test_tritons_own_spans_join_the_trace_and_have_the_headers_of_generate(tmp_path: Path) -> None:
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch, Sink() as sink:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        server = start(tmp_path, REPOSITORY, f"--otlp={sink.url}", "--triton-spans=on")
        try:
            headers = {"traceparent": f"00-{trace}-{caller}-01"}
            body = {"text_input": WORDS, **ASK}
            assert httpx.post(f"{server.url}/v2/models/triune/generate", json=body, headers=headers).status_code == 200
            sink.wait(lambda: {"triune", "triune-triton"} <= {span.service for span in sink.of(trace)})
            sink.wait(lambda: any(span.parent == caller for span in sink.of(trace)))
        finally:
            stop(server)
        spans = {span.id: span for span in sink.of(trace)}
    assert STEPS | {f"text_completion {MODEL}"} == {span.name for span in spans.values() if span.service == "triune"}
    for span in spans.values():
        while span.parent in spans:
            span = spans[span.parent]
        assert span.parent == caller, f"{span.name} does not lead to the caller"
