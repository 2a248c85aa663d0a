"""Run: pytest tests/clients/test_http_errors.py - errors and retries of the HTTP clients over a transport without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fakes.http_replies import event, replies
from triune_client import (
    BadRequest,
    Completion,
    NotFound,
    Overloaded,
    ServerError,
    StatusError,
    StreamBroken,
    TriuneError,
)
from triune_client._http import _translated
from triune_client.testing import MockTransport

Generate = Callable[..., Completion]


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequest), (404, NotFound), (503, Overloaded), (500, ServerError)])
def test_an_error_status_is_its_class_with_the_servers_words(generate: Generate, status: int, kind: type[TriuneError]) -> None:
    response = httpx.Response(status, json={"error": "prompt has 9 tokens, at most 8 fit"})
    with pytest.raises(kind, match="at most 8 fit") as caught:
        generate(transport=replies(response), max_retries=0, call={"request_id": "r1"})
    assert (caught.value.status, caught.value.request_id, caught.value.partial) == (status, "r1", "")
    assert "(request r1)" in str(caught.value)


def test_an_error_after_a_chunk_is_a_broken_stream_with_what_came(generate: Generate) -> None:
    with pytest.raises(StreamBroken, match="engine died") as caught:
        generate(transport=replies(event("half") + 'data: {"error": "engine died"}\n\n'))
    assert caught.value.partial == "half"
    assert isinstance(caught.value.__cause__, ServerError)


def test_a_broken_stream_has_the_code_of_what_broke_it(generate: Generate) -> None:
    failed = 'data: {"error": "INTERNAL [engine_failed]: the engine failed"}\n\n'
    with pytest.raises(StreamBroken) as caught:
        generate(transport=replies(event("half") + failed))
    assert (caught.value.code, caught.value.message) == ("engine_failed", "the engine failed")


@pytest.mark.parametrize("tail", ["", event("", "error"), "data: nonsense\n\n"])
def test_an_answer_without_a_last_chunk_is_a_broken_stream(generate: Generate, tail: str) -> None:
    with pytest.raises(StreamBroken) as caught:
        generate(transport=replies(event("half") + tail))
    assert caught.value.partial == "half"


def test_what_follows_the_last_chunk_does_not_matter(generate: Generate) -> None:
    assert generate(transport=replies(event("all", "stop") + "data: nonsense\n\n")).text == "all"


def test_a_full_server_is_asked_again(generate: Generate, no_pause: None) -> None:
    full = httpx.Response(503, json={"error": "queue is full"})
    assert generate(transport=replies(full, full, event("ok", "stop"))).text == "ok"


def test_a_full_server_is_asked_max_retries_times(generate: Generate, no_pause: None) -> None:
    full = httpx.Response(503, json={"error": "queue is full"})
    with pytest.raises(Overloaded):
        generate(transport=replies(full, full, event("ok", "stop")), max_retries=1)


def test_a_bad_request_is_not_tried_again(generate: Generate, no_pause: None) -> None:
    with pytest.raises(BadRequest):
        generate(transport=replies(httpx.Response(400, json={"error": "no"}), event("ok", "stop")))


def test_retry_after_decides_the_pause(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def async_sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    monkeypatch.setattr("triune_client._sync.time.sleep", pauses.append)
    monkeypatch.setattr("triune_client._async.anyio.sleep", async_sleep)
    full = httpx.Response(503, headers={"retry-after": "7"}, json={"error": "full"})
    assert generate(transport=replies(full, event("ok", "stop"))).text == "ok"
    assert pauses == [7.0]


@pytest.mark.parametrize(("retry_after", "call"), [("7", {"deadline_s": 5.0}), ("3600", {})])
def test_a_pause_past_the_deadline_or_past_reason_is_not_waited_for(
    generate: Generate, retry_after: str, call: dict[str, Any]
) -> None:
    full = httpx.Response(503, headers={"retry-after": retry_after}, json={"error": "full"})
    with pytest.raises(Overloaded) as caught:
        generate(transport=replies(full, event("ok", "stop")), call=call)
    assert caught.value.retry_after_s == float(retry_after)


@pytest.mark.parametrize("kind", [BadRequest, NotFound, Overloaded, ServerError])
def test_an_error_of_the_stand_in_arrives_as_it_was_given(generate: Generate, kind: type[StatusError]) -> None:
    given = kind("what is wrong", status=400, code="too_long", param="prompt")
    with pytest.raises(kind, match="what is wrong") as caught:
        generate(transport=MockTransport(given), max_retries=0)
    assert (caught.value.message, caught.value.code, caught.value.param) == (given.message, given.code, given.param)


def _subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _subclasses(child))]


@pytest.mark.parametrize("kind", _subclasses(httpx.RequestError))
def test_every_error_of_httpx_becomes_one_of_ours(kind: type[Exception]) -> None:
    with pytest.raises(TriuneError) as caught, _translated("http://x"):
        raise kind("why")
    assert isinstance(caught.value.__cause__, kind)
