"""Bytes to events, in pieces of any size; requests as servers want them. Run: pytest tests/load/test_wire.py"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from triune_client._sse import SseDecoder
from triune_load.core.answer import CallPiece
from triune_load.core.metrics_text import held, parse_metrics
from triune_load.core.request import Request
from triune_load.core.workload import SCHEMA, TOOL
from triune_load.protocols.adapter import Dialect, Garbled
from triune_load.protocols.kserve_grpc import GrpcAdapter
from triune_load.protocols.kserve_infer import InferAdapter
from triune_load.protocols.openai_chat import ChatAdapter
from triune_load.protocols.openai_completions import CompletionsAdapter
from triune_load.protocols.openai_responses import ResponsesAdapter
from triune_load.protocols.triton_generate import GenerateAdapter
from triune_load.transports.http_parser import HttpError, ResponseParser
from triune_load.transports.sse import SseSplitter

DIALECT = Dialect(model="m")
REQUEST = Request(
    identity="load-1",
    part="p",
    messages=({"role": "user", "content": "Grüße"},),
    chat=True,
    max_tokens=9,
    temperature=0.5,
    seed=7,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(p, len(data)) for p in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.lists(st.integers(0, 600), max_size=20), st.booleans())
def test_a_body_is_the_same_however_its_bytes_arrive(pieces: list[bytes], places: list[int], chunked: bool) -> None:
    body = b"".join(pieces)
    if chunked:
        framed = b"".join(f"{len(p):x};x=y\r\n".encode() + p + b"\r\n" for p in pieces) + b"0\r\nTrailer: x\r\n\r\n"
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    parser = ResponseParser()
    assert b"".join(parser.feed(piece) for piece in cut(data, places)) == body
    assert parser.complete and parser.keeps_open
    assert parser.status == (200 if chunked else 404)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\nabc") == b"abc"
    assert not parser.complete
    parser.end()
    assert parser.complete


def test_a_connection_with_more_on_it_than_was_asked_for_is_not_used_again() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK")
    assert parser.complete and not parser.keeps_open


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
             b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)  # fmt: skip
def test_what_is_no_http_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(HttpError):
        ResponseParser().feed(data)


@given(st.lists(TEXTS, max_size=10), st.lists(st.integers(0, 300), max_size=20), st.sampled_from([b"\n", b"\r\n"]))
def test_events_are_those_that_the_clients_decoder_finds(texts: list[str], places: list[int], end: bytes) -> None:
    data = b"".join(b": comment" + end + b"data: " + t.encode() + end + end for t in texts)
    splitter, decoder = SseSplitter(), SseDecoder()
    found = [event.decode() for piece in cut(data, places) for event in splitter.feed(piece)]
    assert found == [event for piece in cut(data, places) for event in decoder.feed(piece)] == texts
    assert splitter.rest == b""


def body(adapter: Any, request: Request) -> tuple[str, dict[str, Any]]:
    path, raw = adapter.encode(request)
    return path, json.loads(raw)


def test_a_chat_request() -> None:
    path, sent = body(ChatAdapter(DIALECT), replace(REQUEST, schema=SCHEMA, tools=(TOOL,), ignore_eos=True))
    assert path == "/v1/chat/completions"
    assert sent["messages"] == [{"role": "user", "content": "Grüße"}] and sent["model"] == "m" and sent["max_tokens"] == 9
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True} and sent["ignore_eos"] is True
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA and sent["tools"] == [TOOL]
    _, plain = body(ChatAdapter(replace(DIALECT, running_usage=False, extra={"top_k": 4})), replace(REQUEST, stream=False))
    assert "stream" not in plain and "ignore_eos" not in plain and plain["top_k"] == 4


def test_a_completions_request_has_the_conversation_as_text() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    path, sent = body(CompletionsAdapter(DIALECT), replace(REQUEST, messages=messages))
    assert (path, sent["prompt"]) == ("/v1/completions", "Be brief.\nuser: Hi")


def test_requests_of_kserve_have_the_same_inputs_in_every_form() -> None:
    asked = replace(REQUEST, chat=False)
    path, sent = body(GenerateAdapter(DIALECT), asked)
    assert path == "/v2/models/m/generate_stream" and sent["text_input"] == "Grüße" and sent["stream"] is True
    assert body(GenerateAdapter(DIALECT), replace(asked, stream=False))[0] == "/v2/models/m/generate"
    _, tensors = body(InferAdapter(DIALECT), asked)
    named = {i["name"]: i["data"][0] for i in tensors["inputs"]}
    assert named == {k: v for k, v in sent.items() if k not in ("id", "stream")}
    message = GrpcAdapter(DIALECT, service_pb2, streams=True).encode(asked)
    assert {i.name for i in message.inputs} == set(sent) - {"id"}
    assert message.raw_input_contents[0] == len("Grüße".encode()).to_bytes(4, "little") + "Grüße".encode()


def test_events_of_a_chat() -> None:
    adapter = ChatAdapter(DIALECT)
    event = adapter.decode(
        '{"id": "c", "choices": [{"index": 0, "delta": {"content": "a", "reasoning_content": "b"}, "finish_reason": null}],'
        ' "usage": {"completion_tokens": 4}}'
    )
    assert (event.text, event.reasoning, event.total, event.finish, event.identity) == ("a", "b", 4, None, "c")
    call = adapter.decode(
        '{"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"name": "f", "arguments": "{"}}]}}]}'
    )
    assert call.calls == (CallPiece(1, "f", "{"),)
    usage = adapter.decode('{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}')
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (3, 4, 7)
    assert adapter.decode("[DONE]").done
    assert adapter.decode('{"error": {"message": "busy"}}').error == "busy"


def test_events_of_responses_as_openai_publishes_them() -> None:
    adapter = ResponsesAdapter(DIALECT)
    events = [
        {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {"type": "message"}},
        {"type": "response.reasoning_summary_text.delta", "sequence_number": 2, "delta": "hm"},
        {"type": "response.output_text.delta", "sequence_number": 3, "output_index": 0, "content_index": 0, "delta": "Hi"},
        {"type": "response.output_item.added", "sequence_number": 4, "output_index": 1,
         "item": {"type": "function_call", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "sequence_number": 5, "output_index": 1, "delta": "{}"},
        {"type": "response.completed", "sequence_number": 6, "response": {
            "id": "resp_1", "status": "completed", "output": [{"type": "function_call"}],
            "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}}},
    ]  # fmt: skip
    found = [adapter.decode(json.dumps(event)) for event in events]
    assert [e.index for e in found] == list(range(7))
    assert "".join(e.text for e in found) == "Hi" and "".join(e.reasoning for e in found) == "hm"
    assert [c for e in found for c in e.calls] == [CallPiece(1, "f", ""), CallPiece(1, "", "{}")]
    assert (found[-1].finish, found[-1].done, found[-1].output_tokens, found[0].identity) == ("tool_calls", True, 4, "resp_1")
    assert adapter.decode('{"type": "error", "message": "no"}').error == "no"


@pytest.mark.parametrize("data", ["", "[]", "{", '{"choices": 3}', '{"choices": [{"delta": 4}]}',
                                  '{"choices": [{"delta": {"content": 4}}]}',
                                  '{"choices": [{"delta": {"content": "\\ud800"}}]}',
                                  '{"choices": [], "usage": {"prompt_tokens": -1}}'])  # fmt: skip
def test_what_is_no_event_is_said_to_be_none(data: str) -> None:
    with pytest.raises(Garbled):
        ChatAdapter(DIALECT).decode(data)


@given(st.binary(max_size=40))
def test_no_bytes_of_a_tensor_break_the_decoder(raw: bytes) -> None:
    answer = service_pb2.ModelInferResponse(id="x")
    answer.outputs.add(name="text_output", datatype="BYTES", shape=[1])
    answer.raw_output_contents.append(raw)
    adapter = GrpcAdapter(DIALECT, service_pb2, streams=True)
    try:
        event = adapter.decode(service_pb2.ModelStreamInferResponse(infer_response=answer))
    except Garbled:
        return
    assert event.text.encode() == raw[4:]


def test_metrics_of_several_servers_are_the_same_figures() -> None:
    vllm = '# HELP x\nvllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 1\n'
    vllm += "vllm:num_requests_waiting 2\n"
    blocks = "nv_trt_llm_kv_cache_block_metrics"
    triton = f'{blocks}{{kv_cache_block_type="used"}} 4\n{blocks}{{kv_cache_block_type="max"}} 16\n'
    assert parse_metrics(vllm) == {"running": 4, "waiting": 2}
    assert parse_metrics(triton) == {"slots_used": 4}
    assert parse_metrics("llamacpp:requests_processing 1\nllamacpp:requests_deferred NaN?\n") == {"running": 1}
    assert held(parse_metrics(vllm)) == 4 and held({}) is None
