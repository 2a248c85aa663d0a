"""Log probabilities of prompts, over runners by hand. Run: pytest tests/runtime/test_prompt_logprobs.py"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes.runtime import STOPS, VOCAB, chunks_of, make_engine, run_alone, run_out, scheduler_of, text_of
from triune_runtime.errors import RequestError
from triune_runtime.generation.scheduler import Scheduler
from triune_runtime.kv.slots import SlotStore
from triune_runtime.manifest import Limits
from triune_runtime.request import Event, Request, SamplingParams, TokenLogprob
from triune_runtime.runner import Work
from triune_runtime.targets.fake.runner import FakeRunner


def scored(key: int, prompt: Sequence[int], wanted: int = 2, **params: object) -> Request:
    asked = SamplingParams(max_tokens=3, prompt_logprobs=wanted, **params)  # type: ignore[arg-type]
    return Request(key=key, prompt=tuple(prompt), params=asked)


def rows_by_hand(prompt: Sequence[int]) -> NDArray[np.float64]:
    """Log-softmax after each token, of a runner that gets them one by one."""
    runner = FakeRunner(VOCAB, STOPS)
    logits = np.stack([runner.run([Work(0, at, (token,))])[0] for at, token in enumerate(prompt)]).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def scores_of(request: Request, **limits: int) -> tuple[TokenLogprob, ...]:
    return run_alone(request, **limits)[0].scores


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_each_token_has_the_log_probability_that_the_tokens_before_it_give(chunk: int) -> None:
    prompt = [5, 3, 9, 4, 4, 7, 11, 2, 6, 3]
    found = scores_of(scored(1, prompt), prefill_chunk=chunk)
    rows = rows_by_hand(prompt)
    assert [entry.token_id for entry in found] == prompt[1:]
    for entry, row in zip(found, rows, strict=False):
        assert entry.logprob == pytest.approx(row[entry.token_id], abs=1e-6)
        best = np.argsort(-row, kind="stable")
        assert [token for token, _ in entry.top] == best[:2].tolist()
        assert entry.rank == 1 + best.tolist().index(entry.token_id)


def test_a_prompt_of_one_token_has_none() -> None:
    assert scores_of(scored(1, [5])) == ()


def test_scores_come_with_the_first_piece_alone() -> None:
    pieces = run_alone(scored(1, [5, 3, 9], ignore_eos=True))
    assert [len(piece.scores) for piece in pieces] == [2] + [0] * (len(pieces) - 1)


def test_all_answers_to_a_prompt_have_its_scores_and_one_outlives_its_leader() -> None:
    engine = make_engine(prefill_chunk=2)
    first = scored(1, [5, 3, 9, 4, 6])
    engine.submit_group([first, replace(first, key=2), replace(first, key=3)])
    engine.step()
    engine.abort(1)
    events = run_out(engine)
    expected = scores_of(scored(9, first.prompt))
    assert [chunks_of(events, key)[0].scores for key in (2, 3)] == [expected] * 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_neither_scores_nor_answers_depend_on_who_else_is_served(seed: int) -> None:
    rng = random.Random(seed)
    limits = {"prefill_chunk": rng.randint(1, 8), "max_length": 64}
    requests = [scored(key, [rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 30))]) for key in range(6)]
    plain = [replace(one, params=replace(one.params, prompt_logprobs=None)) for one in requests[3:]]
    engine = make_engine(max_sequences=rng.randint(1, 6), **limits)
    events = list[Event]()
    for request in (*requests[:3], *plain):
        engine.submit(request)
        if rng.random() < 0.5:
            events += engine.step()
    events += run_out(engine)
    for request in requests[:3]:
        alone, together = run_alone(request, **limits), chunks_of(events, request.key)
        assert together[0].scores == alone[0].scores and text_of(together) == text_of(alone)
    for request in plain:
        assert text_of(chunks_of(events, request.key)) == text_of(run_alone(request, **limits))


def test_a_long_prompt_is_scored_in_parts_and_the_others_go_on_between_them() -> None:
    limits = Limits(max_sequences=4, max_length=400, prefill_chunk=32)
    scheduler = Scheduler(limits, SlotStore(4, 400), most_scored=4)
    scheduler.add(Request(key=1, prompt=(2, 3), params=SamplingParams(max_tokens=200)))
    scheduler.commit(scheduler.plan(), {1: [5]})
    scheduler.add(scored(2, [3] * 90))
    lengths, decoded = [], 0
    while scheduler.waiting or scheduler.prefilling:
        step = scheduler.plan()
        lengths += [part.length for part in step.slices if part.scored]
        decoded += any(part.sequence.key == 1 for part in step.slices)
        for part in step.slices:  # as if every token had been scored
            if part.scored:
                known = len(part.sequence.scores)
                part.sequence.scores += [TokenLogprob(3, -1.0)] * (min(part.start + part.length, 89) - known)
        scheduler.commit(step, {part.sequence.key: [5] for part in step.slices if part.samples})
    assert sum(lengths) == 90 and max(lengths) == 4
    assert decoded == len(lengths)  # none of the steps was without it


def test_unscored_prompts_are_cut_as_before() -> None:
    limits = Limits(max_sequences=4, max_length=400, prefill_chunk=32)
    for scheduler in (scheduler_of(limits), Scheduler(limits, SlotStore(4, 400), most_scored=4)):
        scheduler.add(Request(key=1, prompt=(3,) * 70))
        assert [scheduler.plan().slices[0].length for _ in range(3)] == [32, 32, 6]


def test_an_engine_that_cannot_score_refuses_by_name() -> None:
    runner = FakeRunner(VOCAB, STOPS)
    runner.scores = False
    with pytest.raises(RequestError, match="prompt_logprobs is given") as caught:
        make_engine(runner).submit(scored(1, [5, 3]))
    assert caught.value.param == "prompt_logprobs"


def test_more_entries_than_a_response_may_have_are_refused() -> None:
    engine = make_engine(max_length=1 << 17)
    with pytest.raises(RequestError, match="273,000 log probabilities, at most 262,144"):
        engine.submit(scored(1, [5] * 13_000, wanted=20))


def test_logits_that_are_no_numbers_end_the_request_and_nobody_else() -> None:
    class Broken(FakeRunner):
        def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
            logits = super().run(work)
            if work[0].scored:
                logits[:] = np.nan
            return logits

    engine = make_engine(Broken(VOCAB, STOPS))
    engine.submit(scored(1, [5, 3, 9]))
    engine.submit(Request(key=2, prompt=(5, 3), params=SamplingParams(max_tokens=4, ignore_eos=True)))
    events = run_out(engine)
    assert [str(e.item)[:17] for e in events if e.key == 1] == ["the engine failed"]
    assert chunks_of(events, 2)[-1].finish_reason == "length"
