"""Run: pytest tests/clients/test_wire.py"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from triune_client import BadRequest, NotFound, Options, Overloaded, ServerError, StreamBroken
from triune_client._options import Settings
from triune_client._wire import (
    Call,
    chunk_of_event,
    chunk_of_outputs,
    encode_call,
    error_of_response,
    pack,
    parse_retry_after,
    to_json,
    unpack,
)

TEXT = st.text(st.characters(blacklist_categories=("Cs",)))
NUMPY = {"INT32": np.int32, "UINT32": np.uint32, "INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32}


def body_of(deadline_s: float | None = None, **options: Any) -> dict[str, Any]:
    call = Call(request_id="r1", settings=Settings(options=Options(**options)), prompt="hi")
    found: dict[str, Any] = json.loads(to_json("r1", encode_call(call, deadline_s=deadline_s)))
    return found


def test_only_what_was_asked_for_is_sent() -> None:
    assert body_of() == {"id": "r1", "text_input": "hi", "stream": True}


def test_every_option_is_sent_under_the_name_of_its_tensor() -> None:
    sent = body_of(
        deadline_s=5.0, max_tokens=3, min_tokens=1, temperature=1, top_k=4, top_p=0.5, min_p=0.1,
        repetition_penalty=1.5, presence_penalty=0.25, frequency_penalty=-0.5, seed=2**64 - 1, stop="END",
        bad_words=["a", "b"], logit_bias={7: 1, 9: -100}, logprobs=0, ignore_eos=True, cache_salt="t",
    )  # fmt: skip
    assert json.loads(sent.pop("logit_bias")) == {"7": 1.0, "9": -100.0}
    assert sent == {
        "id": "r1", "text_input": "hi", "stream": True, "timeout_s": 5.0, "max_tokens": 3, "min_tokens": 1,
        "temperature": 1.0, "top_k": 4, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.5, "presence_penalty": 0.25,
        "frequency_penalty": -0.5, "seed": 2**64 - 1, "stop": ["END"], "bad_words": ["a", "b"], "top_logprobs": 0,
        "ignore_eos": True, "cache_salt": "t",
    }  # fmt: skip


def test_a_whole_number_is_sent_as_a_float_where_the_tensor_is_one() -> None:
    assert b'"temperature": 1.0' in to_json(
        "",
        encode_call(Call(request_id="", settings=Settings(options=Options(temperature=1)), prompt=""), deadline_s=None),
    )


def test_messages_travel_as_json_text() -> None:
    messages: Any = [{"role": "user", "content": "¿qué? 中"}]
    sent = json.loads(to_json("", encode_call(Call(request_id="", settings=Settings(), messages=messages), deadline_s=None)))
    assert json.loads(sent["messages"]) == messages
    assert "text_input" not in sent


@given(TEXT)
def test_any_text_survives_json(text: str) -> None:
    call = Call(request_id="", settings=Settings(), prompt=text)
    assert json.loads(to_json("", encode_call(call, deadline_s=None)))["text_input"] == text


def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    call = Call(request_id="", settings=Settings(), prompt="a\ud800")
    with pytest.raises(ValueError, match="surrogates"):
        to_json("", encode_call(call, deadline_s=None))


@given(st.lists(TEXT))
def test_string_tensors_are_tritons(texts: list[str]) -> None:
    packed = pack("BYTES", texts)
    assert [item.decode() for item in deserialize_bytes_tensor(packed)] == texts
    reference = serialize_byte_tensor(np.array([text.encode() for text in texts], dtype=np.object_))
    assert unpack("BYTES", reference.item() if reference.size else b"") == texts


@pytest.mark.parametrize("datatype", NUMPY)
def test_number_tensors_are_numpys(datatype: str) -> None:
    values = [0, 1, 100]
    packed = pack(datatype, values)
    assert packed == np.array(values, NUMPY[datatype]).tobytes()
    assert unpack(datatype, packed) == values


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("BYTES", b"\5\0\0\0abc"), ("BYTES", b"\1\0"), ("BYTES", b"\1\0\0\0\xff"), ("INT32", b"\0\0\0"), ("FP8", b"")],
)
def test_a_malformed_tensor_is_a_broken_stream(datatype: str, raw: bytes) -> None:
    with pytest.raises(StreamBroken, match="malformed"):
        unpack(datatype, raw)


def test_a_chunk_is_read_from_scalars_and_from_lists() -> None:
    scalars = {
        "text_output": "é", "finish_reason": "stop", "stop_reason": "END", "chunk_index": 3, "num_input_tokens": 5,
        "num_output_tokens": 1, "request_key": 9, "logprobs": '[{"token_id": 1, "logprob": -0.5}]',
    }  # fmt: skip
    chunk = chunk_of_outputs(scalars, "r1")
    assert chunk == chunk_of_outputs({name: [value] for name, value in scalars.items()}, "r1")
    assert (chunk.text, chunk.finish_reason, chunk.stop_reason, chunk.index) == ("é", "stop", "END", 3)
    assert (chunk.usage.input_tokens, chunk.usage.total_tokens) == (5, 6)
    assert chunk.logprobs == ({"token_id": 1, "logprob": -0.5},)
    assert (chunk.request_key, chunk.request_id) == (9, "r1")


def test_absent_outputs_are_empty() -> None:
    chunk = chunk_of_outputs({"text_output": "a"}, "")
    assert (chunk.finish_reason, chunk.stop_reason, chunk.usage.total_tokens, chunk.logprobs) == (None, None, 0, ())


@pytest.mark.parametrize(
    "data", ["", "[]", "nonsense", '{"finish_reason": "whim"}', '{"logprobs": "{}"}', '{"chunk_index": "x"}']
)
def test_an_event_against_the_contract_is_a_broken_stream(data: str) -> None:
    with pytest.raises(StreamBroken):
        chunk_of_event(data, "")


def test_an_error_event_is_a_server_error() -> None:
    with pytest.raises(ServerError, match="boom"):
        chunk_of_event('{"error": "boom"}', "")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequest), (401, BadRequest), (404, NotFound), (413, BadRequest), (429, Overloaded), (500, ServerError),
     (502, ServerError), (503, Overloaded), (302, ServerError)],
)  # fmt: skip
def test_a_status_has_its_class(status: int, kind: type[Exception]) -> None:
    error = error_of_response(status, b'{"error": "why"}', None, now=0.0)
    assert type(error) is kind
    assert (error.message, error.status) == ("why", status)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"error": "UNAVAILABLE: queue is full"}', Overloaded, "queue is full"),
        (b'data: {"error": "INTERNAL: engine died"}\n\n', ServerError, "engine died"),
        (b'data: {"error": "prompt is too long"}\n\n', BadRequest, "prompt is too long"),
        (b'{"error": "UNAVAILABLES are no status"}', BadRequest, "UNAVAILABLES are no status"),
    ],
)
def test_a_status_named_in_the_text_wins_over_a_400(body: bytes, kind: type[Exception], message: str) -> None:
    error = error_of_response(400, body, "2", now=0.0)
    assert (type(error), error.message, error.status) == (kind, message, 400)
    assert getattr(error, "retry_after_s", 2.0) == 2.0


@pytest.mark.parametrize(
    ("head", "code", "param"),
    [
        ("INVALID_ARGUMENT [too_long prompt]: ", "too_long", "prompt"),
        (
            "in ensemble 'triune', INVALID_ARGUMENT [invalid_value messages[0].content]: ",
            "invalid_value",
            "messages[0].content",
        ),
        ("INVALID_ARGUMENT [a_word_of_a_later_server]: ", "a_word_of_a_later_server", None),
        ("INVALID_ARGUMENT: ", None, None),  # an earlier server
        ("[INVALID_ARGUMENT] ", None, None),
    ],
)
def test_a_code_and_the_input_at_fault_are_read_off_the_message(head: str, code: str | None, param: str | None) -> None:
    error = error_of_response(400, json.dumps({"error": f"{head}[9] is too much"}).encode(), None, now=0.0)
    assert (type(error), error.message, error.code, error.param) == (BadRequest, "[9] is too much", code, param)


def test_a_body_that_is_not_json_is_the_message() -> None:
    assert error_of_response(500, b"<html>\xff", None, now=0.0).message.startswith("<html>")
    assert "502" in error_of_response(502, b"", None, now=0.0).message


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 01 Jan 1970 00:00:40 GMT", 30.0),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert parse_retry_after(header, now=10.0) == expected
