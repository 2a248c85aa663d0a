"""Drafts change no token of any request. Run: pytest tests/runtime/test_drafting.py"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes.drafts import Eager, Oracle, RememberingRunner, engine_with, tokens_alone
from fakes.runtime import STOPS, VOCAB, chunks_of, make_manifest, run_out, scheduler_of, text_of
from triune_runtime.drafting.lookup import LookupDrafter
from triune_runtime.drafting.mtp import MtpDrafter
from triune_runtime.errors import RequestError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import Limits, ReasoningMarkers
from triune_runtime.request import Chunk, Event, Request, SamplingParams
from triune_runtime.runner import Rows, Work
from triune_runtime.targets.fake.runner import FakeRunner

SEEDS = st.integers(0, 2**32)
A, B = 3, 4
MARKERS = ReasoningMarkers(start="a", end="b", closing_ids=(B, 7))


def random_request(rng: random.Random, key: int) -> Request:
    return Request(
        key=key,
        prompt=tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 24))),
        stream=rng.random() < 0.8,
        thinking_open=rng.random() < 0.5,
        separate_reasoning=rng.random() < 0.5,
        params=SamplingParams(
            max_tokens=rng.choice([None, 1, 5, 20]),
            min_tokens=rng.choice([0, 0, 1]),
            temperature=rng.choice([0.0, 1.0]),
            top_k=rng.choice([0, 5]),
            top_p=rng.choice([1.0, 0.8]),
            repetition_penalty=rng.choice([1.0, 1.3]),
            presence_penalty=rng.choice([0.0, 0.5]),
            frequency_penalty=rng.choice([0.0, 0.5]),
            logit_bias=rng.choice([(), ((A, 2.0), (B, -3.0))]),
            bad_words=rng.choice([(), ((A,), (B, 5))]),
            stop=rng.choice([(), ("好",), ("ab", "\n")]),
            stop_token_ids=rng.choice([(), (5,)]),
            ignore_eos=rng.random() < 0.2,
            seed=rng.randrange(100),
            logprobs=rng.choice([None, 0, 2]),
            thinking_budget=rng.choice([None, 0, 3]),
        ),
    )


def whole(chunks: Sequence[Chunk]) -> tuple[Any, ...]:
    """Everything about an answer that must not depend on drafts."""
    last = chunks[-1]
    logprobs = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    thinking = sum(c.cut.reasoning_tokens for c in chunks)
    return text_of(chunks), sum(c.new_tokens for c in chunks), last.finish_reason, last.cut.stop_reason, logprobs, thinking


def serve(
    engine: StepLoop, requests: Sequence[Request], rng: random.Random, aborts: float = 0.0
) -> tuple[list[Event], set[int]]:
    """All events of `requests`, which come one by one, and the keys of those that were aborted."""
    arrivals, events, aborted = list(requests), [], set()
    while arrivals or engine.has_work:
        while arrivals and rng.random() < 0.4:
            engine.submit(arrivals.pop(0))
        if rng.random() < aborts:
            ended = engine.abort(rng.randrange(len(requests)))
            aborted |= {event.key for event in ended}
            events += ended
        events += engine.step()
        engine.scheduler.check()
    assert not engine.scheduler.running and engine.snapshot().tokens == 0
    return events, aborted


@settings(max_examples=200, deadline=None)
@given(seed=SEEDS)
def test_no_answer_depends_on_drafts_right_or_wrong(seed: int) -> None:
    rng = random.Random(seed)
    limits: dict[str, Any] = {"max_length": 64, "prefill_chunk": rng.randint(1, 9)}
    manifest = replace(make_manifest(max_sequences=rng.randint(1, 6), **limits), reasoning=MARKERS)
    requests = [random_request(rng, key) for key in range(rng.randint(1, 8))]
    known = {r.key: tokens_alone(r, lambda: engine_with(None, manifest=manifest)) for r in requests}
    events, aborted = serve(engine_with(Oracle(known, rng), manifest=manifest), requests, rng, aborts=0.03)
    for request in requests:
        chunks = chunks_of(events, request.key)
        assert [c.index for c in chunks] == list(range(len(chunks)))
        if request.key not in aborted:
            alone = engine_with(None, manifest=manifest)
            alone.submit(request)
            assert whole(chunks) == whole(chunks_of(run_out(alone), request.key))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_no_answer_depends_on_prompt_lookup_or_on_the_mtp_layer(seed: int) -> None:
    rng = random.Random(seed)
    runner = RememberingRunner()
    drafters = [MtpDrafter(runner.layer, lambda *of: engine.sampler.guess(*of)), LookupDrafter()]
    rng.shuffle(drafters)
    eager = Eager(rng.randint(2, 5), 64, drafters[: rng.randint(1, 2)])
    engine = engine_with(eager, runner, max_sequences=rng.randint(1, 4), max_length=64, prefill_chunk=rng.randint(1, 9))
    requests = [replace(random_request(rng, key), thinking_open=False) for key in range(rng.randint(1, 6))]
    requests = [replace(r, params=replace(r.params, thinking_budget=None)) for r in requests]
    events, _ = serve(engine, requests, rng)
    for request in requests:
        alone = engine_with(None, manifest=replace(engine.manifest, limits=replace(engine.manifest.limits, max_sequences=1)))
        alone.submit(request)
        assert whole(chunks_of(events, request.key)) == whole(chunks_of(run_out(alone), request.key))


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_the_mtp_layer_has_read_exactly_the_tokens_that_were_chosen(seed: int) -> None:
    rng = random.Random(seed)
    runner = RememberingRunner()
    drafter = MtpDrafter(runner.layer, lambda key, logits, ahead: int(logits.argmax()))
    eager = Eager(rng.randint(2, 5), 64, [drafter])
    engine = engine_with(eager, runner, max_sequences=3, max_length=64, prefill_chunk=rng.randint(1, 9))
    for key in range(5):
        engine.submit(Request(key=key, prompt=tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 20)))))
    while engine.has_work:
        for sequence in engine.scheduler.running:
            state = drafter._states.get(sequence.key)
            if state is not None and state.held == sequence.computed:
                read = runner.layer.read[sequence.slot][: state.held - state.base]
                tokens = sequence.tokens[state.base : state.held + 1]
                assert read == list(itertools.pairwise(tokens))
                assert state.base == 0, "a sequence that is followed from its first token on loses nothing"
        engine.step()


@settings(max_examples=200)
@given(seed=SEEDS)
def test_the_scheduler_counts_a_variable_number_of_tokens(seed: int) -> None:
    rng = random.Random(seed)
    scheduler = scheduler_of(Limits(max_sequences=rng.randint(1, 5), prefill_chunk=rng.randint(1, 8), max_length=64))
    arrivals = [
        Request(key=key, prompt=(A,) * rng.randint(1, 30), params=SamplingParams(max_tokens=rng.randint(1, 12)))
        for key in range(rng.randint(1, 10))
    ]
    while arrivals or scheduler.waiting or scheduler.running:
        while arrivals and rng.random() < 0.5:
            scheduler.add(arrivals.pop(0))
        step = scheduler.plan({s.key: (A,) * rng.randint(0, 5) for s in scheduler.decoding})
        chosen = {}
        for part in step.slices:
            sequence = part.sequence
            assert part.length >= 1 + len(part.drafts) if part.drafts else part.length > 0
            assert sequence.generated + 1 + len(part.drafts) <= sequence.max_tokens, "a draft that cannot be used"
            if part.samples:
                chosen[sequence.key] = [7] * rng.randint(1, 1 + len(part.drafts))
        before = {part.sequence.key: len(part.sequence.tokens) for part in step.slices}
        scheduler.commit(step, chosen)
        for part in step.slices:
            grown = len(part.sequence.tokens) - before[part.sequence.key]
            assert grown == len(chosen.get(part.sequence.key, ()))
            assert part.sequence.pending == 1 or part.sequence in scheduler.prefilling
        for sequence in scheduler.running:
            if sequence.generated >= sequence.max_tokens:
                scheduler.remove(sequence)
        scheduler.check()


def test_right_drafts_save_steps_and_are_counted() -> None:
    request = Request(key=0, prompt=(A, B), params=SamplingParams(max_tokens=13, ignore_eos=True))
    known = {0: tokens_alone(request, lambda: engine_with(None))}
    oracle = Oracle(known, random.Random(0))
    oracle.rng.randint = lambda low, high: 3  # type: ignore[method-assign]  # always three, all of them right
    engine = engine_with(oracle)
    engine.submit(request)
    steps, chunks = 0, []
    while engine.has_work:
        chunks += chunks_of(engine.step(), 0)
        steps += 1
    assert steps == 1 + 3  # the prompt gives one token, each step after it four
    assert (chunks[-1].drafted, chunks[-1].accepted) == (9, 9)
    assert all((c.drafted, c.accepted) == (0, 0) for c in chunks[:-1])
    counted = {u.family: u.value for u in engine.metrics.drain() if u.family.startswith("vllm:spec_decode")}
    assert counted == {
        "vllm:spec_decode_num_drafts_total": 3,
        "vllm:spec_decode_num_draft_tokens_total": 9,
        "vllm:spec_decode_num_accepted_tokens_total": 9,
    }


class Poisoned(FakeRunner):
    """Gives no numbers after `good` tokens."""

    good = 6

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        logits, row = super().run(work), 0
        for item in work:
            for back in range(item.drafts, -1, -1):
                if item.start + len(item.tokens) - back > self.good:
                    logits[row] = np.nan
                row += 1
        return logits


def test_tokens_before_logits_that_are_no_numbers_are_given_all_the_same() -> None:
    request = Request(key=0, prompt=(A, B), params=SamplingParams(max_tokens=20, ignore_eos=True))
    known = {0: tokens_alone(request, lambda: engine_with(None))}
    for speculator in (None, Oracle(known, random.Random(1))):
        engine = engine_with(speculator, Poisoned(VOCAB, STOPS))
        engine.submit(request)
        events = run_out(engine)
        assert "not numbers" in str(events[-1].item)
        shown = text_of(chunks_of(events, 0))
        if speculator is None:
            wanted = shown
        assert shown == wanted and wanted


def test_drafts_are_refused_where_the_engine_checks_none() -> None:
    engine = engine_with(None)
    with pytest.raises(RequestError, match=r"checks no drafts; hint: omit num_draft_tokens .* --speculation on"):
        engine.submit(Request(key=0, prompt=(A,), params=SamplingParams(max_drafts=2)))
    engine.submit(Request(key=0, prompt=(A,), params=SamplingParams(max_drafts=0)))


@settings(max_examples=200)
@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40), count=st.integers(1, 6), cuts=st.integers(0, 2**32))
def test_prompt_lookup_continues_the_latest_longest_match(tokens: list[int], count: int, cuts: int) -> None:
    rng, drafter = random.Random(cuts), LookupDrafter()
    sequence = scheduler_of(Limits()).add(Request(key=0, prompt=tuple(tokens[:1])))
    while len(sequence.tokens) < len(tokens):  # it is asked now and then, as the sequence grows
        sequence.tokens += tokens[len(sequence.tokens) :][: rng.randint(1, 4)]
        drafter.draft(sequence, 1)
    wanted: tuple[int, ...] = ()
    for size in (2, 4):
        for end in range(size, len(tokens)):
            if len(tokens) > size and tokens[end - size : end] == tokens[-size:]:
                going_on = list(tokens)
                for _ in range(count):
                    going_on.append(going_on[end + len(going_on) - len(tokens)])
                wanted = tuple(going_on[len(tokens) :])
    assert drafter.draft(sequence, count) == wanted


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS)
def test_a_guess_from_the_models_own_logits_is_what_the_sampler_then_chooses(seed: int) -> None:
    rng = random.Random(seed)
    sampler = engine_with(None).sampler
    request = replace(random_request(rng, 0), thinking_open=False)
    request = replace(request, params=replace(request.params, bad_words=()))
    sampler.add(request, frozenset(STOPS))
    numbers = np.random.default_rng(seed)
    plain = replace(request.params, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0, min_tokens=0)
    ahead = plain == request.params  # what penalties make of further tokens is not known yet
    first, second = numbers.standard_normal((2, VOCAB)).astype(np.float32)
    guesses = sampler.guess(0, first), sampler.guess(0, second, 1)
    chosen = [sampler.sample([0], Rows(row[None]))[0].token_id for row in (first, second)]
    assert guesses[0] == chosen[0]
    assert guesses[1] == chosen[1] or not ahead
