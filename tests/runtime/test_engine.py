"""Run: pytest tests/runtime/test_engine.py"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes.runtime import STOPS, TOKENS, VOCAB, chunks_of, make_engine, plain_greedy, run_alone, run_out, text_of
from triune_runtime.errors import Overloaded, RequestError, TooLong, TriuneError
from triune_runtime.kv.store import KvUsage
from triune_runtime.request import Chunk, Event, Request, SamplingParams
from triune_runtime.runner import Immediate, Work
from triune_runtime.targets.fake.runner import FakeRunner

SEEDS = st.integers(0, 2**32)


def random_request(rng: random.Random, key: int) -> Request:
    return Request(
        key=key,
        prompt=tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 24))),
        stream=rng.random() < 0.8,
        params=SamplingParams(
            max_tokens=rng.choice([None, 1, 5, 20]),
            min_tokens=rng.choice([0, 0, 3]),
            temperature=rng.choice([0.0, 1.0]),
            top_k=rng.choice([0, 5]),
            repetition_penalty=rng.choice([1.0, 1.3]),
            presence_penalty=rng.choice([0.0, 0.5]),
            stop=rng.choice([(), ("好",), ("ab", "\n")]),
            stop_token_ids=rng.choice([(), (5,)]),
            ignore_eos=rng.random() < 0.2,
            seed=rng.randrange(100),
            logprobs=rng.choice([None, 0, 2]),
        ),
    )


def whole(chunks: Sequence[Chunk]) -> tuple[Any, ...]:
    """Everything about an answer that must not depend on how it was served."""
    last = chunks[-1]
    logprobs = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    return text_of(chunks), sum(c.new_tokens for c in chunks), last.finish_reason, last.cut.stop_reason, logprobs


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_no_answer_depends_on_the_company_it_is_served_in(seed: int) -> None:
    rng = random.Random(seed)
    chunk = rng.randint(1, 9)
    limits: dict[str, Any] = {"max_length": 64, "prefill_chunk": chunk}
    engine = make_engine(max_sequences=rng.randint(1, 6), **limits)
    arrivals = [random_request(rng, key) for key in range(rng.randint(2, 10))]
    requests = list(arrivals)
    events: list[Event] = []
    aborted: set[int] = set()
    while arrivals or engine.has_work:
        while arrivals and rng.random() < 0.4:
            engine.submit(arrivals.pop(0))
        if rng.random() < 0.05:
            ended = engine.abort(rng.randrange(len(requests)))
            aborted |= {event.key for event in ended}
            events += ended
        events += engine.step()
        engine.scheduler.check()
    assert not engine.scheduler.running and not engine.scheduler.waiting
    assert engine.snapshot().tokens == 0
    for request in requests:
        of_it = [e for e in events if e.key == request.key]
        chunks = chunks_of(of_it, request.key)
        assert [e.last for e in of_it] == [False] * (len(of_it) - 1) + [True]
        assert [c.index for c in chunks] == list(range(len(chunks)))
        alone = run_alone(request, max_sequences=1, **limits)
        if request.key in aborted:
            assert chunks[-1].finish_reason == "cancelled"
            assert text_of(run_alone(replace(request, params=replace(request.params, stop=())), **limits)).startswith(
                text_of(chunks).rstrip("\ufffd")
            )
        else:
            assert whole(chunks) == whole(alone)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_greedy_answers_are_those_of_a_plain_loop(seed: int) -> None:
    rng = random.Random(seed)
    chunk, count = rng.randint(1, 9), 15
    engine = make_engine(max_sequences=3, max_length=64, prefill_chunk=chunk)
    prompts = [tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 24))) for _ in range(6)]
    for key, prompt in enumerate(prompts):
        engine.submit(Request(key=key, prompt=prompt, params=SamplingParams(max_tokens=count, logprobs=0)))
    events = run_out(engine)
    for key, prompt in enumerate(prompts):
        chunks = chunks_of(events, key)
        wanted = plain_greedy(prompt, count, chunk)
        assert [entry.token_id for c in chunks for entry in c.logprobs] == wanted
        stopped = wanted[-1] in STOPS
        assert chunks[-1].finish_reason == ("stop" if stopped else "length")
        assert text_of(chunks) == TOKENS.join(wanted).decode("utf-8", "replace")


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_streamed_text_equals_the_text_in_one_piece(seed: int) -> None:
    request = random_request(random.Random(seed), 0)
    streamed = run_alone(replace(request, stream=True), max_length=64)
    (single,) = run_alone(replace(request, stream=False), max_length=64)
    assert whole(streamed) == whole([single])


class Scripted(Immediate):
    """A runner that makes every sequence say `script`, whatever its prompt."""

    vocab_size = VOCAB

    def __init__(self, *script: int, prompt: int = 1) -> None:
        self._script, self._prompt = script, prompt

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        logits = np.zeros((len(work), VOCAB), np.float32)
        for row, item in enumerate(work):
            logits[row, self._script[item.start + len(item.tokens) - self._prompt]] = 1
        return logits

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Nothing is kept."""


A, B, AB, SMILE = 3, 4, 5, TOKENS.index("😀".encode())


def say(*script: int, **params: Any) -> list[Chunk]:
    engine = make_engine(Scripted(*script))
    engine.submit(Request(key=0, prompt=(A,), params=SamplingParams(**params)))
    return chunks_of(run_out(engine), 0)


def test_a_stop_token_ends_the_answer_and_is_counted_but_not_shown() -> None:
    chunks = say(A, B, STOPS[1], A)
    assert whole(chunks) == ("ab", 3, "stop", None, ())


def test_a_stop_token_of_the_request_ends_it_too() -> None:
    assert whole(say(A, B, AB, A, stop_token_ids=(AB,))) == ("ab", 3, "stop", None, ())


def test_ignore_eos_passes_over_the_models_stop_tokens_only() -> None:
    assert whole(say(A, STOPS[0], B, AB, ignore_eos=True, stop_token_ids=(AB,))) == ("ab", 4, "stop", None, ())


def test_a_stop_string_ends_the_answer_inside_a_token() -> None:
    assert whole(say(SMILE, AB, A, stop=("b",))) == ("😀 a", 2, "stop", "b", ())


def test_a_stop_string_that_is_the_whole_answer_leaves_an_empty_chunk() -> None:
    chunks = say(A, B, stop=("a",))
    assert whole(chunks) == ("", 1, "stop", "a", ()) and len(chunks) == 1


def test_max_tokens_hands_out_what_was_held_back() -> None:
    assert whole(say(A, A, A, max_tokens=2, stop=("aaa",))) == ("aa", 2, "length", None, ())


def test_an_answer_that_ends_inside_a_character_ends_with_a_replacement() -> None:
    first = TOKENS.index(b"\xe4")
    assert whole(say(A, first, max_tokens=2)) == ("a\ufffd", 2, "length", None, ())


def test_a_deadline_ends_running_and_waiting_requests() -> None:
    now = 0.0
    engine = make_engine(Scripted(*[A] * 50), clock=lambda: now, max_sequences=1)
    for key in range(2):
        engine.submit(Request(key=key, prompt=(A,), deadline=5.0))
    events = engine.step() + engine.step()
    now = 5.5
    events += engine.step()
    assert not engine.has_work
    assert whole(chunks_of(events, 0)) == ("aa", 2, "deadline", None, ())
    assert whole(chunks_of(events, 1)) == ("", 0, "deadline", None, ())


def test_abort_by_id_ends_all_of_that_name_and_no_nameless_ones() -> None:
    engine = make_engine()
    for key, name in enumerate(("x", "", "x", "y")):
        engine.submit(Request(key=key, id=name, prompt=(A,)))
    assert [e.key for e in engine.abort_id("x")] == [0, 2]
    assert engine.abort_id("") == engine.abort_id("z") == engine.abort(0) == []
    assert len(engine.scheduler.waiting) == 2


class Flaky(FakeRunner):
    """Fails in the steps that `bad` names."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__(VOCAB, STOPS)
        self._bad, self._runs = bad, 0

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        self._runs += 1
        if self._runs in self._bad:
            raise MemoryError("no room for the attention scores")
        return super().run(work)


def test_a_failing_step_is_answered_and_the_others_are_served() -> None:
    engine = make_engine(Flaky({4}), max_sequences=2, prefill_chunk=4)
    requests = [
        Request(key=key, prompt=(A, B, key + 2), params=SamplingParams(max_tokens=20, ignore_eos=True)) for key in range(4)
    ]
    for request in requests:
        engine.submit(request)
    events = run_out(engine)
    for key in (0, 1):
        last = [e for e in events if e.key == key][-1]
        assert isinstance(last.item, TriuneError) and "no room for the attention scores" in str(last.item)
    for request in requests[2:]:
        assert whole(chunks_of(events, request.key)) == whole(run_alone(request, prefill_chunk=4))


class Poisoned(FakeRunner):
    """Gives no numbers for sequences that hold the token `poison`."""

    poison = 7

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        logits = super().run(work)
        for row, item in enumerate(work):
            if any(self.poison in tokens for tokens in self._slots[item.slot]):
                logits[row] = np.nan
        return logits


def test_logits_that_are_no_numbers_end_only_their_own_sequence() -> None:
    engine = make_engine(Poisoned(VOCAB, STOPS))
    params = SamplingParams(max_tokens=9, ignore_eos=True, bad_words=((7,),))
    requests = [Request(key=key, prompt=prompt, params=params) for key, prompt in enumerate(((A, B), (A, 7), (B,)))]
    for request in requests:
        engine.submit(request)
    events = run_out(engine)
    assert ["not numbers" in str(e.item) for e in events if e.key == 1] == [True]
    for key in (0, 2):
        assert whole(chunks_of(events, key)) == whole(run_alone(requests[key]))


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ((), {}, "the prompt has no tokens; hint: send text_input or messages with some text"),
        ((A, VOCAB), {}, f"prompt has token id {VOCAB}, the vocabulary is 0 to {VOCAB - 1}"),
        ((-1,), {}, "prompt has token id -1"),
        ((A,), {"logit_bias": ((A, 1.0), (999, 1.0))}, "logit_bias has token id 999"),
        ((A,), {"bad_words": ((A, B), (A, -2))}, "bad_words has token id -2"),
    ],
)
def test_requests_that_the_engine_cannot_run_are_refused(prompt: tuple[int, ...], params: dict[str, Any], message: str) -> None:
    engine = make_engine()
    with pytest.raises(RequestError) as refusal:
        engine.submit(Request(key=0, prompt=prompt, params=SamplingParams(**params)))
    assert message in str(refusal.value)
    assert not engine.has_work


def test_refused_requests_leave_nothing_behind() -> None:
    engine = make_engine(max_queue=1, max_length=8)
    with pytest.raises(TooLong):
        engine.submit(Request(key=0, prompt=(A,) * 9))
    engine.submit(Request(key=1, prompt=(A,)))
    with pytest.raises(Overloaded):
        engine.submit(Request(key=2, prompt=(A,)))
    assert {e.key for e in run_out(engine)} == {1}


def test_closing_answers_everyone_and_tells_the_waiting_to_come_back() -> None:
    engine = make_engine(Scripted(*[A] * 50), max_sequences=1)
    for key in range(3):
        engine.submit(Request(key=key, prompt=(A,)))
    events = engine.step() + engine.close()
    assert not engine.has_work and not engine.scheduler.running
    assert whole(chunks_of(events, 0)) == ("a", 1, "cancelled", None, ())
    assert [type(e.item) for e in events if e.key > 0] == [Overloaded, Overloaded]


def test_the_snapshot_counts_requests_slots_and_tokens() -> None:
    engine = make_engine(Scripted(*[A] * 50, prompt=1), max_sequences=2, prefill_chunk=4, max_length=32)
    for key in range(4):
        engine.submit(Request(key=key, prompt=(A,)))
    engine.step()
    engine.step()
    now = engine.snapshot()
    assert (now.decoding, now.prefilling, now.waiting, now.tokens) == (2, 0, 2, 4)
    assert (now.slots, now.kv) == (2, KvUsage(blocks=2, used=2, block_tokens=32))
