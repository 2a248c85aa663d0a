"""Log probabilities in OpenAI's two shapes. Run: pytest tests/gateway/test_logprobs.py"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fakes.ensemble import CHAT, COMPLETION, Gateway, piece
from triune_gateway.logprobs import TextOffsets, chat_logprobs


def entry(text: bytes, logprob: float = -0.5, top: tuple[tuple[bytes, float], ...] = ()) -> dict[str, Any]:
    """A token as the server gives it."""
    return {
        "token_id": 1, "logprob": logprob, "bytes": list(text),
        "top": [[index, value] for index, (_, value) in enumerate(top)], "top_bytes": [list(raw) for raw, _ in top],
    }  # fmt: skip


BEST = ((b" Paris", -0.1), (b" Rome", -2.5))


def with_logprobs(gateway: Gateway) -> None:
    tokens = [[entry(b"\xc3", -1.0, BEST)], [entry(b"\xbc", -math.inf, BEST), entry(b" b", -3.0, BEST)]]
    gateway.ensemble.reply = lambda request: [
        piece("", logprobs=json.dumps(tokens[0])),
        piece("ü b", logprobs=json.dumps(tokens[1]), num_output_tokens=2),
        piece("", "stop", num_output_tokens=0),
    ]


def test_a_chat_has_an_entry_a_token_with_its_bytes(gateway: Gateway) -> None:
    with_logprobs(gateway)
    found = gateway.chat(logprobs=True, top_logprobs=1)["choices"][0]["logprobs"]
    request = gateway.ensemble.requests[0]
    assert request.get("top_logprobs", request.get("logprobs")) == 1
    assert [(token["token"], token["logprob"], token["bytes"]) for token in found["content"]] == [
        ("\ufffd", -1.0, [0xC3]), ("\ufffd", -9999.0, [0xBC]), (" b", -3.0, [32, 98]),
    ]  # fmt: skip
    assert all(
        token["top_logprobs"] == [{"token": " Paris", "logprob": -0.1, "bytes": list(b" Paris")}] for token in found["content"]
    )


def test_streamed_entries_are_those_of_the_whole_answer(gateway: Gateway) -> None:
    with_logprobs(gateway)
    whole = gateway.chat(logprobs=True)["choices"][0]["logprobs"]["content"]
    events = gateway.events("chat/completions", CHAT | {"logprobs": True})
    streamed = [e["choices"][0]["logprobs"]["content"] for e in events if e["choices"][0]["logprobs"]]
    assert [token for tokens in streamed for token in tokens] == whole
    assert all(token["top_logprobs"] == [] for token in whole)


def test_a_completion_has_lists_and_offsets(gateway: Gateway) -> None:
    with_logprobs(gateway)
    found = gateway.complete(logprobs=2)["choices"][0]["logprobs"]
    assert found["tokens"] == ["\ufffd", "\ufffd", " b"]
    assert found["token_logprobs"] == [-1.0, -9999.0, -3.0]
    assert found["text_offset"] == [0, 0, 1]
    assert found["top_logprobs"][2] == {" b": -3.0, " Paris": -0.1, " Rome": -2.5}
    events = gateway.events("completions", COMPLETION | {"logprobs": 2})
    offsets = [e["choices"][0]["logprobs"]["text_offset"] for e in events]
    assert [offset for some in offsets for offset in some] == [0, 0, 1]


def test_zero_alternatives_are_none(gateway: Gateway) -> None:
    with_logprobs(gateway)
    assert gateway.complete(logprobs=0)["choices"][0]["logprobs"]["top_logprobs"] == [None, None, None]
    assert gateway.complete()["choices"][0]["logprobs"] is None


def test_a_server_that_gives_no_bytes_leaves_numbers() -> None:
    (found,) = chat_logprobs([{"token_id": 7, "logprob": -1, "top": [[9, -1.5]]}], 1)["content"]
    assert found == {
        "token": "token_id:7", "logprob": -1, "bytes": None,
        "top_logprobs": [{"token": "token_id:9", "logprob": -1.5, "bytes": None}],
    }  # fmt: skip


@given(st.text(), st.data())
def test_offsets_point_at_the_characters_of_the_text(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "replace")
    text = raw.decode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=8)) | {0, len(raw)})
    tokens = [raw[begin:end] for begin, end in itertools.pairwise(cuts)]
    offsets = TextOffsets(3).shape([entry(token) for token in tokens], 0)["text_offset"]
    assert offsets == [3 + len(raw[:begin].decode("utf-8", "ignore")) for begin in cuts[:-1]]
