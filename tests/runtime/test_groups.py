"""Several answers to one prompt. Run: pytest tests/runtime/test_groups.py"""

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

from fakes.runtime import STOPS, VOCAB, chunks_of, make_engine, run_alone, run_out, text_of
from triune_runtime.errors import Overloaded, RequestError, TriuneError
from triune_runtime.generation.groups import derived_seed
from triune_runtime.request import Chunk, Event, Request, SamplingParams
from triune_runtime.runner import Work
from triune_runtime.targets.fake.runner import FakeRunner


def group(key: int, size: int, prompt: int, **params: Any) -> list[Request]:
    """`size` requests for one prompt, with keys from `key` on."""
    rng = random.Random(key)
    tokens = tuple(rng.randrange(2, VOCAB) for _ in range(prompt))
    drawn = SamplingParams(temperature=1.0, **{"max_tokens": 12, "seed": key, "logprobs": 1, **params})
    return [
        Request(key=key + index, id=str(key), prompt=tokens, params=replace(drawn, seed=derived_seed(drawn.seed, index)))
        for index in range(size)
    ]


def whole(chunks: Sequence[Chunk]) -> tuple[Any, ...]:
    entries = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    return text_of(chunks), sum(c.new_tokens for c in chunks), chunks[-1].finish_reason, entries


class CountingRunner(FakeRunner):
    """Counts the tokens that are run, and fails from step `fails_at` on."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__(VOCAB, STOPS)
        self.tokens, self.steps, self._fails_at = 0, 0, fails_at

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        self.steps += 1
        if self.steps == self._fails_at:
            raise RuntimeError("broken")
        self.tokens += sum(len(item.tokens) for item in work)
        return super().run(work)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_each_answer_of_a_group_is_what_it_is_alone(seed: int) -> None:
    rng = random.Random(seed)
    slots, chunk = rng.randint(1, 6), rng.randint(1, 9)
    limits: dict[str, Any] = {"max_length": 64, "prefill_chunk": chunk}
    engine = make_engine(max_sequences=slots, **limits)
    groups = [group(100 * i, rng.randint(1, slots), rng.randint(1, 24)) for i in range(rng.randint(1, 6))]
    events: list[Event] = []
    aborted: set[int] = set()
    left = list(groups)
    while left or engine.has_work:
        if left and rng.random() < 0.5:
            engine.submit_group(left.pop())
        if rng.random() < 0.1:
            aborted.add(victim := rng.choice(rng.choice(groups)).key)
            events += engine.abort(victim)
        events += engine.step()
        engine.scheduler.check()
    for request in (one for requests in groups for one in requests):
        assert [e.last for e in events if e.key == request.key][-1:] == [True]
        if request.key not in aborted:
            assert whole(chunks_of(events, request.key)) == whole(run_alone(request, **limits))
    assert engine.snapshot() == make_engine(max_sequences=slots, **limits).snapshot()


def test_a_prompt_is_computed_once_for_all_its_answers() -> None:
    runner = CountingRunner()
    engine = make_engine(runner, max_sequences=4, prefill_chunk=8, stops=())
    engine.submit_group(group(1, 4, prompt=20, max_tokens=5))
    run_out(engine)
    assert runner.tokens == 20 + 4 * 4  # the last token of an answer is not run


def test_when_the_leader_leaves_the_next_goes_on_with_what_is_computed() -> None:
    runner = CountingRunner()
    engine = make_engine(runner, max_sequences=3, prefill_chunk=8, stops=())
    requests = group(1, 3, prompt=20, max_tokens=5)
    engine.submit_group(requests)
    engine.step()
    engine.abort(requests[0].key)
    events = run_out(engine)
    assert runner.tokens == 20 + 2 * 4
    for request in requests[1:]:
        assert whole(chunks_of(events, request.key)) == whole(run_alone(request, prefill_chunk=8, stops=()))


def test_answers_with_their_own_seeds_differ_and_the_first_has_the_request_s() -> None:
    engine = make_engine(max_sequences=4)
    requests = group(1, 4, prompt=5, seed=9, max_tokens=12, ignore_eos=True)
    engine.submit_group(requests)
    events = run_out(engine)
    assert len({text_of(chunks_of(events, request.key)) for request in requests}) > 1
    assert requests[0].params.seed == 9
    assert len({derived_seed(2**64 - 1, index) for index in range(1000)}) == 1000


def test_a_group_waits_until_there_is_a_slot_for_each_and_nobody_overtakes_it() -> None:
    engine = make_engine(max_sequences=3, prefill_chunk=64)
    engine.submit_group(group(1, 1, prompt=4, ignore_eos=True, max_tokens=10))
    engine.step()
    engine.submit_group(group(10, 3, prompt=4))
    engine.submit_group(group(20, 1, prompt=4))
    engine.step()
    assert (engine.snapshot().decoding, engine.snapshot().prefilling, engine.snapshot().waiting) == (1, 0, 4)
    order = [event.key for event in run_out(engine)]
    assert order.index(20) > max(order.index(key) for key in (10, 11, 12))


@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_a_step_that_fails_is_answered_to_every_member_and_the_next_group_is_served(fails_at: int) -> None:
    engine = make_engine(CountingRunner(fails_at), max_sequences=3, prefill_chunk=4)
    engine.submit_group(group(1, 3, prompt=10, ignore_eos=True))
    events = run_out(engine)
    assert {e.key for e in events if isinstance(e.item, TriuneError)} == {1, 2, 3}
    engine.submit_group(requests := group(10, 3, prompt=10))
    later = run_out(engine)
    assert [text_of(chunks_of(later, r.key)) for r in requests] == [text_of(run_alone(r, prefill_chunk=4)) for r in requests]


def test_an_abort_by_id_a_deadline_and_a_close_end_a_whole_group_at_any_time() -> None:
    for steps in range(6):
        for how in ("id", "deadline", "close"):
            now = [0.0]
            engine = make_engine(max_sequences=3, prefill_chunk=4, clock=lambda now=now: now[0])
            requests = [replace(r, deadline=5.0) for r in group(1, 3, prompt=10, ignore_eos=True)]
            engine.submit_group(requests)
            events = [event for _ in range(steps) for event in engine.step()]
            now[0] = 10.0 if how == "deadline" else 0.0
            events += {"id": lambda e=engine: e.abort_id("1"), "deadline": engine.step, "close": engine.close}[how]()
            assert sorted(e.key for e in events if e.last) == [1, 2, 3], (steps, how)
            engine.scheduler.check()
            assert not engine.has_work


def test_a_group_larger_than_the_engine_is_refused_with_its_size() -> None:
    engine = make_engine(max_sequences=3)
    with pytest.raises(RequestError, match="4 sequences are asked for, but this engine serves 3 at once"):
        engine.submit_group(group(1, 4, prompt=3))
    assert not engine.has_work


def test_the_members_of_waiting_groups_count_against_the_queue() -> None:
    engine = make_engine(max_sequences=3, max_queue=4)
    engine.submit_group(group(1, 3, prompt=3))
    engine.submit_group(group(10, 3, prompt=3))
    with pytest.raises(Overloaded, match="6 requests are waiting already"):
        engine.submit_group(group(20, 1, prompt=3))


def test_times_are_told_in_order_where_they_are_asked_for() -> None:
    ticks = iter(range(10_000))
    engine = make_engine(max_sequences=2, clock=lambda: float(next(ticks)))
    (first, second) = group(1, 2, prompt=3, ignore_eos=True, max_tokens=3)
    engine.submit_group([replace(first, timed=True), second])
    events = run_out(engine)
    for chunk in chunks_of(events, first.key):
        times = chunk.times
        assert times is not None and times.scheduled is not None and times.first is not None and times.latest is not None
        assert times.arrived < times.scheduled < times.first <= times.latest
    assert all(chunk.times is None for chunk in chunks_of(events, second.key))
