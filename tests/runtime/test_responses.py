"""One request's sequences as responses, and as one response. Run: pytest tests/runtime/test_responses.py"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fakes.runtime import TOKENS, make_engine, run_alone, text_of
from fakes.sinks import Client, request, working
from triune_runtime.errors import Overloaded, RequestError, TriuneError
from triune_runtime.options.wire import Options
from triune_runtime.request import Chunk, Request, TokenLogprob
from triune_runtime.serving.combining import combined
from triune_runtime.serving.responses import Responses
from triune_runtime.text.cut import Cut


def chunk(index: int, reason: Any = None) -> Chunk:
    return Chunk(index, Cut((3,), 0, 1), 1, reason)


class Watched:
    """Responses to rows of two sequences each, and what becomes of them."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[tuple[Any, bool]] = []
        self.aborted: list[int] = []
        self.watched: list[int] = []
        self.responses = Responses(TOKENS, lambda answer, last: self.sent.append((answer, last)), self.aborted.append)
        self.sinks: list[Any] = []
        for row in range(2):
            requests = [Request(key=10 * row + i, prompt=(3, 4)) for i in range(2)]
            watches = [lambda key=one.key: self.watched.append(key) for one in requests]
            self.sinks += self.responses.expect(requests, Options(n=2, best_of=2, batched=True, **options), row, watches)


def test_only_the_last_response_of_all_sequences_is_marked_so() -> None:
    watched = Watched(stream=True)
    for sink in watched.sinks:
        sink(chunk(0))
    for sink in reversed(watched.sinks):
        sink(chunk(1, "length"))
    assert [last for _, last in watched.sent] == [False] * 7 + [True]
    assert watched.watched == [0, 1, 10, 11]  # never after the last chunk of a sequence


def test_a_response_of_vllm_has_an_element_for_each_sequence_and_nothing_for_those_without_news() -> None:
    sent: list[Any] = []
    responses = Responses(TOKENS, lambda answer, last: sent.append(answer), lambda key: None)
    requests = [Request(key=key, prompt=(3, 4)) for key in range(2)]
    sinks = responses.expect(requests, Options(n=2, best_of=2, stream=True, vllm=True), 0, [lambda: None] * 2)
    sinks[1](Chunk(0, Cut((3,), 0, 1), 1, "stop", (TokenLogprob(3, -1.5),)))
    (arrays,) = sent
    assert arrays["num_output_tokens"].tolist() == [0, 1]
    assert [len(json.loads(entry)) for entry in arrays["logprobs"]] == [0, 1]
    assert arrays["cum_log_probs"].tolist() == [0.0, -1.5]
    assert arrays["finish_reason"].tolist() == [b"None", b"stop"]
    assert arrays["sequence_index"].tolist() == [[1]]
    assert arrays["byte_range"].tolist() == [0, 0, -1, -1, 0, 1, -1, -1]


def test_an_error_of_one_sequence_is_the_whole_request_s_and_nothing_follows_it() -> None:
    watched = Watched(stream=True)
    watched.sinks[0](chunk(0, "stop"))
    watched.sinks[1](TriuneError("broken"))
    for sink in watched.sinks[2:]:
        sink(chunk(0))
        sink(chunk(1, "cancelled"))
    assert len(watched.sent) == 2
    assert isinstance(watched.sent[-1][0], TriuneError) and watched.sent[-1][1]
    assert watched.aborted == [10, 11]
    assert watched.watched == []  # Triton must not be asked about a request that has its final response


def test_a_request_that_is_not_streamed_is_answered_whole_or_with_an_error() -> None:
    watched, failed = Watched(), Watched()
    for sink in watched.sinks[:3]:
        sink(chunk(0, "stop"))
    assert watched.sent == []
    watched.sinks[3](chunk(0, "stop"))
    assert [last for _, last in watched.sent] == [False] * 3 + [True]
    for sink in failed.sinks[:2]:
        sink(chunk(0, "stop"))
    failed.sinks[2](TriuneError("broken"))
    failed.sinks[3](chunk(0, "cancelled"))
    assert [(type(answer), last) for answer, last in failed.sent] == [(TriuneError, True)]


def test_a_row_that_cannot_be_taken_ends_those_before_it() -> None:
    watched = Watched()
    watched.responses.fail(Overloaded("full"))
    watched.responses.fail(Overloaded("full"))
    watched.sinks[0](chunk(0, "stop"))
    assert len(watched.sent) == 1 and watched.aborted == [0, 1, 10, 11]


def test_a_group_handed_to_the_worker_is_answered_to_each_or_refused_as_a_whole() -> None:
    with working(make_engine(max_sequences=2, max_queue=1)) as worker:
        clients = [Client() for _ in range(2)]
        worker.submit_group([(request(key), client) for key, client in enumerate(clients)])
        for client in clients:
            assert isinstance(client.last, Chunk)
        assert text_of(clients[0].chunks) == text_of(run_alone(request(0)))
        with pytest.raises(RequestError, match="4 answers are asked for at once; at most 3"):
            worker.submit_group([(request(key), Client()) for key in range(10, 14)])
        worker.submit(request(20), after := Client())
        assert isinstance(after.last, Chunk)


def test_responses_are_combined_in_the_order_of_their_rows_and_sequences() -> None:
    def part(row: int, sequence: int, *logprobs: float) -> dict[str, Any]:
        places = {"batch_index": np.array([[row]]), "sequence_index": np.array([[sequence]])}
        text = {"text_output": np.array([f"{row}{sequence}".encode()], np.object_)}
        return places | text | {"output_log_probs": np.array([logprobs], np.float32)}

    found = combined([part(1, 0, -1), part(0, 1, -2, -3), part(0, 0, -4)])
    assert next(iter(found)) == "text_output"  # clients read the first one
    assert found["text_output"].tolist() == [b"00", b"01", b"10"]
    assert found["output_log_probs"].tolist() == [[-4, 0], [-2, -3], [-1, 0]]
    assert combined([]) == {}
