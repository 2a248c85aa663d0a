"""Whatever is sent, the server says what is wrong and serves on. Run: pytest tests/e2e/test_bad_inputs.py"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from support.real_server import RealServer

pytestmark = pytest.mark.triton
GENERATE = "/v2/models/triune/generate"
GOOD = {"text_input": "The capital of France is", "max_tokens": 2}
SERVER_ERROR = (400, 500)  # Triton 2.51 answers 500 where it cannot read the JSON, newer ones 400


def with_good(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def chat(messages: str) -> bytes:
    return json.dumps({"messages": messages, "max_tokens": 2}).encode()


# name: (body, statuses, what the error says)
OVER_HTTP: dict[str, tuple[bytes, tuple[int, ...], str]] = {
    # no JSON, or not ours
    "empty body": (b"", SERVER_ERROR, "document is empty"),
    "no JSON": (b"hello", SERVER_ERROR, "Invalid value"),
    "half a JSON": (b'{"text_input": "a"', SERVER_ERROR, "Missing a comma"),
    "a JSON list": (b"[1]", SERVER_ERROR, "non-object"),
    "deep JSON": (b'{"text_input":' + b"[" * 100_000, SERVER_ERROR, "parse"),
    "an input twice": (b'{"text_input":"a","text_input":"b"}', (400,), "already exists"),
    "parameters are a list": (with_good(parameters=[1]), SERVER_ERROR, "parameters"),
    "a nested parameter": (with_good(parameters={"a": {"b": 1}}), (400,), "invalid type"),
    "an id that is a number": (with_good(id=3), SERVER_ERROR, "'id'"),
    "an unknown input": (with_good(temprature=1.0), (400,), "temprature is 1.0; no such parameter"),
    "an unknown parameter": (with_good(parameters={"nope": 1}), (400,), "nope is 1; no such parameter"),
    # the prompt
    "nothing": (b"{}", (400,), "needs text_input or messages; this one has neither"),
    "text and messages": (with_good(messages="[]"), (400,), "this one has both"),
    "empty text": (with_good(text_input=""), (400,), "the prompt has no tokens"),
    "text is a number": (with_good(text_input=7), SERVER_ERROR, "non-string"),
    "text is null": (with_good(text_input=None), SERVER_ERROR, "non-string"),
    "two texts": (with_good(text_input=["a", "b"]), (400,), "proper shape"),
    "text is no UTF-8": (b'{"text_input":"a\xff\xfe"}', (400,), "text_input is not valid UTF-8"),
    "a text of 1 MB": (with_good(text_input="a" * 1_000_000), (400,), "has 1,000,000 bytes"),
    "prompt and answer beyond the context": (
        with_good(text_input="a b c d " * 100, max_tokens=2000),
        (400,),
        "prompt has 401 tokens and max_tokens is 2,000, but this engine holds 2,048",
    ),
    "half a surrogate pair": (b'{"text_input":"\\ud800"}', SERVER_ERROR, "surrogate"),
    "a prompt beyond the context": (with_good(text_input="a b c d " * 5_000), (400,), "this engine holds"),
    "a prompt of 5 MB": (with_good(text_input="a" * 5_000_000), (400,), "has 5,000,000 bytes"),
    # chat
    "messages are no JSON": (chat("hi"), (400,), "messages is not JSON"),
    "messages are an object": (chat("{}"), (400,), "a list of at least one message"),
    "no message": (chat("[]"), (400,), "a list of at least one message"),
    "a message without role": (chat('[{"content": "x"}]'), (400,), "messages[0] has role null"),
    "a message without content": (chat('[{"role": "user"}]'), (400,), "messages[0] has content null"),
    "a picture": (chat('[{"role": "user", "content": [{"type": "image_url"}]}]'), (400,), "only parts of type text"),
    "deep messages": (chat("[" * 100_000), (400,), "nested too deeply"),
    "messages are no UTF-8": (b'{"messages":"[\xff]"}', (400,), "messages is not valid UTF-8"),
    "half a surrogate pair in a message": (
        chat('[{"role": "user", "content": "\\ud800"}]'),
        (400,),
        "messages is not valid UTF-8",
    ),
    "a role that is a number": (chat('[{"role": 1, "content": "x"}]'), (400,), "messages[0] has role 1"),
    "a message that is a text": (chat('["hi"]'), (400,), "messages[0] must be an object"),
    "too many messages": (chat(json.dumps([{"role": "user", "content": "a"}] * 5_000)), (400,), "this engine holds 2,048"),
    "messages not as text": (b'{"messages": [{"role": "user", "content": "x"}]}', SERVER_ERROR, "non-string"),
    # numbers
    "temperature NaN": (b'{"text_input":"a","temperature":NaN}', (400,), "temperature is nan"),
    "temperature infinite": (b'{"text_input":"a","temperature":1e999}', SERVER_ERROR, "too big"),
    "temperature negative": (with_good(temperature=-1), (400,), "temperature is -1"),
    "temperature a text": (with_good(temperature="hot"), SERVER_ERROR, "non-number"),
    "max_tokens 0": (with_good(max_tokens=0), (400,), "max_tokens is 0"),
    "max_tokens negative": (with_good(max_tokens=-1), (400,), "max_tokens is -1"),
    "max_tokens broken": (with_good(max_tokens=1.5), SERVER_ERROR, "non-signed-integer"),
    "max_tokens beyond the context": (with_good(max_tokens=100_000), (400,), "max_tokens is 100,000"),
    "max_tokens beyond 32 bits": (with_good(max_tokens=2**31), SERVER_ERROR, "max_tokens"),
    "max_tokens twice": (with_good(max_tokens=[1, 2]), (400,), "proper shape"),
    "max_tokens empty": (with_good(max_tokens=[]), (400,), "proper shape"),
    "min_tokens negative": (with_good(min_tokens=-1), (400,), "min_tokens is -1"),
    "top_p above 1": (with_good(top_p=2), (400,), "top_p is 2"),
    "top_k negative": (with_good(top_k=-5), (400,), "top_k is -5"),
    "min_p above 1": (with_good(min_p=2), (400,), "min_p is 2"),
    "repetition_penalty 0": (with_good(repetition_penalty=0), (400,), "repetition_penalty is 0"),
    "presence_penalty huge": (with_good(presence_penalty=1e6), (400,), "presence_penalty is 1000000"),
    "frequency_penalty huge": (with_good(frequency_penalty=-1e6), (400,), "frequency_penalty is -1000000"),
    "seed negative": (with_good(seed=-1), SERVER_ERROR, "non-unsigned-integer"),
    "two seeds": (with_good(seed=1, random_seed=2), (400,), "they mean the same"),
    "timeout_s 0": (with_good(timeout_s=0), (400,), "timeout_s is 0"),
    "timeout negative": (with_good(parameters={"timeout": -1}), (400,), "timeout is -1"),
    "timeout a text": (with_good(parameters={"timeout": "x"}), (400,), "timeout is 'x'"),
    "top_logprobs 100": (with_good(top_logprobs=100), (400,), "top_logprobs is 100"),
    "top_logprobs 21": (with_good(top_logprobs=21), (400,), "top_logprobs is 21; a whole number from 0 to 20"),
    "end_id negative": (with_good(end_id=-7), (400,), "end_id is -7"),
    "timeout huge": (with_good(parameters={"timeout": 2**62}), (400,), "timeout is 4611686018427387904"),
    "stream a text": (with_good(stream="yes"), SERVER_ERROR, "non-boolean"),
    # lists and JSON inside JSON
    "a stop that is a number": (with_good(stop=[1]), SERVER_ERROR, "non-string"),
    "a stop that is no UTF-8": (b'{"text_input":"a","stop":["\xff"]}', (400,), "stop is not valid UTF-8"),
    "a stop of half a surrogate pair": (
        with_good(sampling_parameters='{"stop": ["\\ud800"]}'),
        (400,),
        "stop is not valid UTF-8",
    ),
    "a bad word of half a surrogate pair": (
        with_good(sampling_parameters='{"bad_words": ["\\ud800"]}'),
        (400,),
        "bad_words is not valid UTF-8",
    ),
    "a parameter that is no UTF-8": (b'{"text_input":"a","parameters":{"x":"\xff"}}', (400,), "not valid UTF-8"),
    "an id that is no UTF-8": (b'{"text_input":"a","id":"\xff"}', (400,), "not valid UTF-8"),
    "logit_bias no JSON": (with_good(logit_bias="x"), (400,), "logit_bias is not JSON"),
    "logit_bias a list": (with_good(logit_bias="[1]"), (400,), "a JSON object is expected"),
    "logit_bias of no token": (with_good(logit_bias='{"9999999": 1}'), (400,), "token id 9999999"),
    "logit_bias of the token after the last": (with_good(logit_bias='{"49152": 1}'), (400,), "token id 49152, the vocabulary"),
    "logit_bias of a negative token": (with_good(logit_bias='{"-1": 1}'), (400,), "logit_bias is '-1'"),
    "logit_bias of no number": (with_good(logit_bias='{"1": null}'), (400,), "logit_bias is None"),
    "logit_bias too large": (with_good(logit_bias='{"1": 1e9}'), (400,), "logit_bias is 1000000000"),
    "logit_bias NaN": (with_good(logit_bias='{"1": NaN}'), (400,), "logit_bias is nan"),
    "weights without words": (with_good(embedding_bias_words=["a"]), (400,), "one a word"),
    "sampling_parameters no JSON": (with_good(sampling_parameters="{"), (400,), "sampling_parameters is not JSON"),
    "sampling_parameters unknown": (with_good(sampling_parameters='{"nope": 1}'), (400,), "nope is 1"),
    "sampling_parameters wrong": (with_good(sampling_parameters='{"temperature": "hot"}'), (400,), "temperature is 'hot'"),
    "sampling_parameters a list": (with_good(sampling_parameters="[1]"), (400,), "a JSON object is expected"),
    "a number of 400 digits": (
        with_good(sampling_parameters='{"temperature": 1' + "0" * 400 + "}"),
        (400,),
        "temperature is 1000",
    ),
    "a number of 5,000 digits": (with_good(sampling_parameters='{"top_k": 1' + "0" * 5000 + "}"), (400,), "not JSON"),
    "deep sampling_parameters": (with_good(sampling_parameters='{"a":' * 100_000), (400,), "nested too deeply"),
    # not served
    "beams": (with_good(beam_width=4), (400,), "beam_width is 4; only 0 or 1"),
    "many answers": (with_good(num_return_sequences=2), (400,), "num_return_sequences is 2"),
    "a length penalty": (with_good(length_penalty=2.0), (400,), "length_penalty is 2"),
    "LoRA": (with_good(lora_task_id=1), (400,), "lora_task_id is not served"),
    "a decoder's text": (with_good(decoder_text_input="x"), (400,), "decoder_text_input is not served"),
    "pictures": (with_good(image=["x"]), (400,), "image is not served"),
    "logits": (with_good(return_context_logits=True), (400,), "return_context_logits"),
    "an echo in a stream": (with_good(stream=True, exclude_input_in_output=False), (400,), "a stream carries the answer only"),
    "LoRA by name": (with_good(sampling_parameters='{"lora_name": "x"}'), (400,), "lora_name is not served"),
    "LoRA's table": (with_good(lora_config=[1, 2, 3]), (400,), "lora_config is not served"),
    "a cancel of nothing": (b'{"cancel": true}', (400,), "no id"),
}


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
        ("generate", {"input_ids": [1] * 5_000, "options": "{}"}, "prompt has 5,000 tokens, but this engine holds 2,048"),
        ("generate", {"input_ids": [1]}, "missing required input"),
        ("generate", {"input_ids": [1], "options": ["{}", "{}"]}, "proper shape"),
        ("generate", {"input_ids": [1], "options": '{"params":{"top_p":7}}'}, "top_p is 7"),
        ("generate", {"input_ids": [1], "options": '{"params":{"temperature":NaN}}'}, "temperature is nan"),
        ("generate", {"input_ids": [1], "options": '{"params":{"logit_bias":[[49152,1.0]]}}'}, "token id 49152"),
        ("generate", {"input_ids": [1], "options": '{"params":{"stop":["\\ud800"]}}'}, "stop is not valid UTF-8"),
        ("generate", {"input_ids": [1], "options": "x"}, "cannot be read"),
        ("generate", {"input_ids": [1], "options": '{"params":{"max_tokens":"x"}}'}, "max_tokens is 'x'"),
        ("generate", {"input_ids": [1], "options": '{"params":{"seed":-1,"temperature":1}}'}, "seed is -1"),
        ("detokenize", {"token_ids": [10**6], "byte_range": [0, 1], "request_key": 1}, "token_ids are"),
        ("ensemble", {"text_input": ["a", "b"]}, "proper shape"),
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
