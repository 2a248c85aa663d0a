"""Run: pytest tests/clients/test_grpc.py - the gRPC clients against a real gRPC server in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from triune_client import (
    BadRequest,
    Cancelled,
    Completion,
    ConnectError,
    NotFound,
    Overloaded,
    ServerError,
    StreamBroken,
    TriuneError,
)
from triune_client.grpc import AsyncGrpcClient, GrpcClient

Generate = Callable[..., Completion]


def test_generate_joins_the_chunks_and_sums_the_counts(grpc_generate: Generate, grpc_server: Any) -> None:
    grpc_server.scripts = [[
        grpc_server.chunk("Gr", num_input_tokens=4, num_output_tokens=1, request_key=8, logprobs='[{"logprob":-1}]'),
        grpc_server.chunk("üß中", num_input_tokens=0, num_output_tokens=2, chunk_index=1, request_key=8, logprobs=""),
        grpc_server.chunk("", "stop", num_output_tokens=1, chunk_index=2, request_key=8, stop_reason="END"),
        grpc_server.answer(),
    ]]  # fmt: skip
    completion = grpc_generate(grpc_server.url, call={"request_id": "r1"})
    assert (completion.text, completion.finish_reason, completion.stop_reason) == ("Grüß中", "stop", "END")
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (4, 4)
    assert (completion.logprobs, completion.request_key) == (({"logprob": -1},), 8)


def test_every_option_arrives_in_its_datatype_and_shape(grpc_generate: Generate, grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("ok", "stop")]]
    options = {
        "max_tokens": 3, "min_tokens": 1, "temperature": 1, "top_k": 4, "top_p": 0.5, "min_p": 0.25, "seed": 2**64 - 1,
        "repetition_penalty": 1.5, "presence_penalty": 0.25, "frequency_penalty": -0.5, "logprobs": 0, "ignore_eos": True,
    }  # fmt: skip
    more = {"stop": ["a", "é"], "bad_words": "b", "logit_bias": {7: 1}, "request_id": "r1", "deadline_s": 9.0}
    grpc_generate(grpc_server.url, call={**options, **more})
    (sent,) = grpc_server.requests
    assert 0 < sent.pop("timeout_s")[0] <= 9.0
    assert sent == {
        "id": "r1", "model": "triune", "text_input": ["hi"], "stream": [True], "stop": ["a", "é"], "bad_words": ["b"],
        "logit_bias": ['{"7": 1.0}'], "top_logprobs": [options.pop("logprobs")],
        **{name: [value] for name, value in options.items()},
    }  # fmt: skip
    assert "triton_grpc_error" not in grpc_server.metadata[0]  # it makes some servers crash


def test_chat_sends_messages(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("ok", "stop")]]
    with GrpcClient(grpc_server.url, headers={"x-team": "a"}) as client:
        assert client.chat("hé").text == "ok"
    assert grpc_server.requests[0]["messages"] == ['[{"role": "user", "content": "hé"}]']
    assert grpc_server.metadata[0]["x-team"] == "a"


def test_the_server_s_word_and_the_input_at_fault_come_with_any_status(grpc_generate: Generate, grpc_server: Any) -> None:
    said = "INVALID_ARGUMENT [too_long prompt]: prompt has 9 tokens"
    grpc_server.scripts = [[(grpc.StatusCode.INVALID_ARGUMENT, said, ())]]
    with pytest.raises(BadRequest) as caught:
        grpc_generate(grpc_server.url, max_retries=0)
    assert (caught.value.code, caught.value.param, caught.value.message) == ("too_long", "prompt", "prompt has 9 tokens")


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.INVALID_ARGUMENT, BadRequest), (grpc.StatusCode.NOT_FOUND, NotFound),
     (grpc.StatusCode.UNAVAILABLE, Overloaded), (grpc.StatusCode.INTERNAL, ServerError),
     (grpc.StatusCode.CANCELLED, Cancelled)],
)  # fmt: skip
def test_a_status_is_its_class(grpc_generate: Generate, grpc_server: Any, code: Any, kind: type[TriuneError]) -> None:
    grpc_server.scripts = [[(code, "the reason", ())]]
    with pytest.raises(kind, match="the reason") as caught:
        grpc_generate(grpc_server.url, max_retries=0, call={"request_id": "r1"})
    assert (type(caught.value), caught.value.status, caught.value.request_id) == (kind, code.name, "r1")


def test_an_error_with_a_status_names_what_is_wrong_too(grpc_generate: Generate, grpc_server: Any) -> None:
    said = "in ensemble 'triune', INVALID_ARGUMENT [unsupported enable_thinking]: this model does not think"
    grpc_server.scripts = [[(grpc.StatusCode.INVALID_ARGUMENT, said, ())]]
    with pytest.raises(BadRequest) as caught:
        grpc_generate(grpc_server.url, max_retries=0)
    error = caught.value
    assert (error.message, error.code, error.param) == ("this model does not think", "unsupported", "enable_thinking")


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("UNAVAILABLE: queue is full", Overloaded, "queue is full"),
        ("in ensemble 'triune', [INTERNAL] it broke", ServerError, "it broke"),
        ("Request for unknown model: 'x' is not found", NotFound, "Request for unknown model: 'x' is not found"),
        ("Stub process 'generate_0' is not healthy.", StreamBroken, "Stub process 'generate_0' is not healthy."),
        ("unexpected inference input 'x'", BadRequest, "unexpected inference input 'x'"),
    ],
)
def test_an_error_without_a_status_is_known_by_its_text(
    grpc_generate: Generate, grpc_server: Any, text: str, kind: type[TriuneError], message: str
) -> None:
    grpc_server.scripts = [[service_pb2.ModelStreamInferResponse(error_message=text)]]
    with pytest.raises(kind) as caught:
        grpc_generate(grpc_server.url, max_retries=0)
    assert caught.value.message == message


def test_an_error_after_a_chunk_is_a_broken_stream_with_what_came(grpc_generate: Generate, grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("half"), (grpc.StatusCode.UNAVAILABLE, "engine died", ())]]
    with pytest.raises(StreamBroken, match="engine died") as caught:
        grpc_generate(grpc_server.url)
    assert caught.value.partial == "half"
    assert len(grpc_server.requests) == 1


def test_a_stream_without_a_last_chunk_is_broken(grpc_generate: Generate, grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("half"), grpc_server.answer()]]
    with pytest.raises(StreamBroken):
        grpc_generate(grpc_server.url)


def test_a_full_server_is_asked_again_when_it_says(grpc_generate: Generate, grpc_server: Any) -> None:
    full = (grpc.StatusCode.UNAVAILABLE, "queue is full", (("retry-after", "0"),))
    grpc_server.scripts = [[full], [full], [grpc_server.chunk("ok", "stop")]]
    assert grpc_generate(grpc_server.url).text == "ok"
    assert len(grpc_server.requests) == 3


def test_a_port_where_nothing_listens_is_a_connect_error(grpc_generate: Generate, no_pause: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(ConnectError, match=f"nothing answers at 127.0.0.1:{port}"):
        grpc_generate(f"127.0.0.1:{port}")


def test_many_async_streams_share_a_channel(grpc_server: Any) -> None:
    grpc_server.scripts = [[grpc_server.chunk("a"), grpc_server.chunk("b", "stop")] for _ in range(20)]

    async def go() -> list[Completion]:
        async with AsyncGrpcClient(grpc_server.url) as client:
            return await asyncio.gather(*(client.generate("hi") for _ in range(20)))

    assert [completion.text for completion in asyncio.run(go())] == ["ab"] * 20


def test_ready_and_models(grpc_server: Any) -> None:
    with GrpcClient(grpc_server.url) as client:
        assert client.ready()
        assert not client.with_options(model="absent").ready()
        assert [(model.name, model.state) for model in client.models()] == [("triune", "READY")]
        client.cancel("r9")
    assert grpc_server.cancelled == ["r9"]


def test_async_ready_and_models(grpc_server: Any) -> None:
    async def go() -> None:
        async with AsyncGrpcClient(grpc_server.url) as client:
            assert await client.ready()
            assert [model.name for model in await client.models()] == ["triune"]
            await client.cancel("r9")

    asyncio.run(go())
    assert grpc_server.cancelled == ["r9"]


@pytest.mark.parametrize("url", ["localhost", "http://localhost:8001", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url is"):
        GrpcClient(url)
