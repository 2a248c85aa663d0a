"""Run: pytest tests/clients/test_http.py - the HTTP clients over a transport without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from fakes.http_replies import event, replies
from triune_client import (
    AsyncClient,
    Cancelled,
    Client,
    Completion,
    NotFound,
)
from triune_client.testing import MockTransport

Generate = Callable[..., Completion]


def test_generate_joins_the_chunks_and_sums_the_counts(generate: Generate) -> None:
    transport = replies(
        event("Gr", num_input_tokens=4, num_output_tokens=1, chunk_index=0, request_key=8, logprobs='[{"logprob":-1}]')
        + event("üß", num_output_tokens=2, chunk_index=1, request_key=8, logprobs='[{"logprob":-2}]')
        + event("", "stop", num_output_tokens=1, chunk_index=2, request_key=8, stop_reason="END")
    )
    answer = generate(transport=transport, call={"request_id": "r1"})
    assert str(answer) == answer.text == "Grüß"
    assert (answer.finish_reason, answer.stop_reason, answer.model) == ("stop", "END", "triune")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 4)
    assert answer.logprobs == ({"logprob": -1}, {"logprob": -2})
    assert (answer.request_id, answer.request_key) == ("r1", 8)
    assert answer.time_to_first_token_s is not None
    assert 0 <= answer.time_to_first_token_s <= answer.duration_s


def test_requests_are_streamed_and_have_an_id_of_their_own(generate: Generate) -> None:
    transport = MockTransport("ok")
    generate(transport=transport)
    generate(transport=transport)
    assert all(request["stream"] for request in transport.requests)
    assert len({request["id"] for request in transport.requests}) == 2


def test_stream_equals_generate() -> None:
    transport = MockTransport(["a", "é", "中"])
    client = Client(transport=transport)
    with client.stream("hi") as stream:
        chunks = list(stream)
    assert [chunk.text for chunk in chunks] == ["a", "é", "中"]
    assert stream.completion.text == stream.text == client.generate("hi").text
    assert stream.completion.finish_reason == chunks[-1].finish_reason == "stop"


def test_async_stream_equals_async_generate() -> None:
    async def go() -> None:
        async with AsyncClient(transport=MockTransport(["a", "é", "中"])) as client:
            async with client.stream("hi") as stream:
                texts = [chunk.text async for chunk in stream]
            assert texts == ["a", "é", "中"]
            assert stream.completion.text == (await client.generate("hi")).text

    asyncio.run(go())


def test_many_async_calls_share_a_client() -> None:
    async def go() -> None:
        transport = MockTransport(lambda request: [request["text_input"], "!"])
        async with AsyncClient(transport=transport) as client:
            answers = await asyncio.gather(*(client.generate(f"p{n}") for n in range(50)))
        assert [answer.text for answer in answers] == [f"p{n}!" for n in range(50)]

    asyncio.run(go())


def test_a_string_is_a_conversation_of_one_turn() -> None:
    transport = MockTransport("ok")
    client = Client(transport=transport)
    client.chat("hi")
    client.chat([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    sent = [json.loads(request["messages"]) for request in transport.requests]
    assert sent == [[{"role": "user", "content": "hi"}], [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]]


def test_a_completion_is_not_to_be_had_before_the_end() -> None:
    stream = Client(transport=MockTransport(["a", "b"])).stream("hi")
    with pytest.raises(RuntimeError, match="has not ended"):
        _ = stream.completion
    next(stream)
    with pytest.raises(RuntimeError, match="has not ended"):
        _ = stream.completion


def test_leaving_a_stream_cancels_its_request() -> None:
    transport = MockTransport(["a", "b", "c"])
    with Client(transport=transport).stream("hi", request_id="r1") as stream:
        next(stream)
    assert transport.recorder.cancelled == ["r1"]
    assert (stream.completion.text, stream.completion.finish_reason) == ("a", "cancelled")
    assert list(stream) == []


def test_a_stream_that_was_never_read_sends_nothing() -> None:
    transport = MockTransport("a")
    with Client(transport=transport).stream("hi"):
        pass
    assert (transport.requests, transport.recorder.cancelled) == ([], [])


def test_a_stream_read_to_its_end_cancels_nothing() -> None:
    transport = MockTransport(["a", "b"])
    with Client(transport=transport).stream("hi") as stream:
        for chunk in stream:
            if chunk.finish_reason:
                break  # the answer is whole: leaving now takes nothing from the server
    assert transport.recorder.cancelled == []
    assert stream.completion.finish_reason == "stop"


def test_a_stream_may_be_left_after_its_client_was_closed() -> None:
    transport = MockTransport(["a", "b"])
    with Client(transport=transport) as client:
        stream = client.stream("hi")
        next(stream)
    stream.close()
    assert transport.recorder.cancelled == []
    assert stream.completion.finish_reason == "cancelled"


def test_an_exception_of_the_reader_cancels_and_passes() -> None:
    transport = MockTransport(["a", "b"])

    def read() -> None:
        with Client(transport=transport).stream("hi", request_id="r1") as stream:
            next(stream)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert transport.recorder.cancelled == ["r1"]


def test_an_async_task_that_is_cancelled_frees_its_request() -> None:
    async def go() -> None:
        transport = MockTransport(["a", "b"])
        async with AsyncClient(transport=transport) as client:
            read = asyncio.Event()

            async def reader() -> None:
                async with client.stream("hi", request_id="r1") as stream:
                    async for _ in stream:
                        read.set()
                        await asyncio.sleep(60)

            task = asyncio.create_task(reader())
            await read.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert transport.recorder.cancelled == ["r1"]

    asyncio.run(go())


def test_cancel_ends_the_stream() -> None:
    transport = MockTransport(["a", "b", "c"])
    with Client(transport=transport).stream("hi", request_id="r1") as stream:
        for _ in stream:
            stream.cancel()
    assert transport.recorder.cancelled == ["r1"]
    assert stream.completion.text == "a"


def test_generate_raises_when_its_request_was_cancelled(generate: Generate) -> None:
    with pytest.raises(Cancelled) as caught:
        generate(transport=replies(event("half") + event("", "cancelled")), call={"request_id": "r1"})
    assert (caught.value.partial, caught.value.request_id) == ("half", "r1")


def test_an_answer_cut_at_its_deadline_is_an_answer(generate: Generate) -> None:
    answer = generate(transport=replies(event("half") + event("", "deadline")), call={"deadline_s": 5.0})
    assert (answer.text, answer.finish_reason) == ("half", "deadline")


def test_the_servers_deadline_is_what_is_left_of_the_callers(generate: Generate) -> None:
    transport = MockTransport("ok")
    generate(transport=transport, call={"deadline_s": 30.0})
    assert 0 < transport.requests[0]["timeout_s"] <= 30.0


def test_ready_and_models() -> None:
    client = Client(transport=MockTransport("ok"))
    assert client.ready()
    assert not client.with_options(model="absent").ready()
    assert [(model.name, model.state) for model in client.models()] == [("triune", "READY")]


def test_the_model_is_part_of_the_path() -> None:
    with pytest.raises(NotFound, match="absent"):
        Client(transport=MockTransport("ok"), model="absent").generate("hi")


def test_cancel_by_id_says_when_it_failed() -> None:
    transport = MockTransport("ok")
    Client(transport=transport).cancel("r9")
    assert transport.recorder.cancelled == ["r9"]
    with pytest.raises(NotFound):
        Client(transport=transport, model="absent").cancel("r9")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url is"):
        Client(url)
