"""Run: pytest tests/runtime/test_scheduler.py"""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.runtime import scheduler_of
from triune_runtime.errors import Overloaded, RequestError, TooLong
from triune_runtime.generation.scheduler import Scheduler
from triune_runtime.generation.step import Step
from triune_runtime.manifest import Limits
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Copy

LIMITS = st.builds(
    Limits, max_sequences=st.integers(1, 6), prefill_chunk=st.integers(1, 8), max_length=st.just(64), max_queue=st.just(100)
)


def make_request(key: int, prompt: int, max_tokens: int | None = 1) -> Request:
    return Request(key=key, prompt=tuple(range(prompt)), params=SamplingParams(max_tokens=max_tokens))


def commit(scheduler: Scheduler, step: Step) -> None:
    """Take a step in as if every sample had been token 7, and end what has its tokens."""
    scheduler.commit(step, {part.sequence.key: [7] for part in step.slices if part.samples})
    for sequence in scheduler.running:
        if sequence.generated >= sequence.max_tokens:
            scheduler.remove(sequence)
    scheduler.check()


@settings(max_examples=200)
@given(limits=LIMITS, seed=st.integers(0, 2**32))
def test_invariants_hold_under_random_arrivals_and_cancellations(limits: Limits, seed: int) -> None:
    rng = random.Random(seed)
    scheduler = scheduler_of(limits)
    arrivals = [make_request(key, rng.randint(1, 40), rng.randint(1, 12)) for key in range(rng.randint(1, 15))]
    cuts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    started: list[int] = []
    cancelled: set[int] = set()
    sequences, stood_still_for = [], 0
    while arrivals or scheduler.waiting or scheduler.running:
        while arrivals and rng.random() < 0.5:
            sequences.append(scheduler.add(arrivals.pop(0)))
        if sequences and rng.random() < 0.05:
            victim = rng.choice(sequences)
            cancelled.add(victim.key)
            scheduler.remove(victim)
            scheduler.check()
        may_start = bool(scheduler.waiting) and len(scheduler.running) < limits.max_sequences
        decoding = list(scheduler.decoding)
        step = scheduler.plan()
        scheduler.check()
        # Every decoding sequence runs one token, and they are the first slots; or none does, while more are to start.
        decodes = [part for part in step.slices if part.start >= len(part.sequence.request.prompt)]
        prompts = [part for part in step.slices if part not in decodes]
        still = bool(decoding) and not decodes
        if still:
            stood_still_for += sum(part.length for part in prompts)
            assert prompts and not step.orders
            assert len(prompts) + len(scheduler.waiting) + len(scheduler.prefilling) > len(decoding)
            assert stood_still_for < 4 * limits.prefill_chunk
        else:
            stood_still_for = 0
            assert {part.sequence for part in decodes} == set(decoding)
            assert [part.sequence.slot for part in decodes] == list(range(len(decoding)))
            assert all(part.length == 1 and part.samples for part in decodes)
        # Prompts make progress, but no more than one chunk of it.
        assert sum(part.length for part in prompts) <= limits.prefill_chunk
        assert prompts or not may_start
        assert sum(not part.samples for part in prompts) <= 1
        for part in prompts:
            assert part.start + part.length == part.sequence.computed
            cuts[part.sequence.key].append((part.start, part.start + part.length))
        started += [part.sequence.key for part in prompts if part.start == 0]
        commit(scheduler, step)
    assert started == sorted(started), "somebody overtook"
    assert not scheduler.running
    for sequence in sequences:
        if sequence.key not in cancelled:
            prompt, chunk = len(sequence.request.prompt), limits.prefill_chunk
            assert cuts[sequence.key] == [(at, min(at + chunk, prompt)) for at in range(0, prompt, chunk)]


@given(limits=LIMITS, lengths=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_a_request_starts_after_a_bounded_number_of_steps(limits: Limits, lengths: list[int]) -> None:
    scheduler, answer = scheduler_of(limits), 3
    sequences = [scheduler.add(make_request(key, length, answer)) for key, length in enumerate(lengths)]
    chunks = sum(-(-length // limits.prefill_chunk) for length in lengths)
    steps = 0
    while sequences[-1].generated == 0:
        commit(scheduler, scheduler.plan())
        steps += 1
    # Each step runs a chunk unless all slots decode, and a full set of those leaves within `answer` steps.
    assert steps <= chunks + answer * len(lengths)


def test_short_prompts_share_a_step() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=8))
    for key, length in enumerate((3, 3, 3)):
        scheduler.add(make_request(key, length))
    assert [(p.sequence.key, p.length, p.samples) for p in scheduler.plan().slices] == [(0, 3, True), (1, 3, True)]


def test_a_long_prompt_keeps_its_place_before_short_ones() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=4))
    for key, length in enumerate((1, 4, 1)):
        scheduler.add(make_request(key, length, 5))
    step = scheduler.plan()
    assert [p.sequence.key for p in step.slices] == [0]
    commit(scheduler, step)
    assert [p.sequence.key for p in scheduler.plan().slices] == [1]


def test_few_stand_still_while_many_are_to_start_and_many_do_not_for_few() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=4, max_sequences=12))
    for key in range(10):
        scheduler.add(make_request(key, 4, 20))
    who = []
    for _ in range(10):
        step = scheduler.plan()
        who.append([part.sequence.key for part in step.slices])
        commit(scheduler, step)
    # 9 are to start while 1 decodes, then 8 while 2 do. 7 for 3 is worth one chunk, and 3 have had two: from then on in turns.
    assert who == [[0], [1], [2], *([*range(n)] for n in range(4, 11))]


def test_nobody_stands_still_for_those_who_get_no_slot() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=4, max_sequences=2))
    for key in range(12):
        scheduler.add(make_request(key, 4, 20))
    for _ in range(2):
        commit(scheduler, scheduler.plan())
    assert not scheduler.stands_still
    assert [part.sequence.key for part in scheduler.plan().slices] == [0, 1]


def test_a_sequence_joins_the_batch_without_a_copy() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=2))
    for key in range(3):
        scheduler.add(make_request(key, 5, 20))
    for _ in range(12):
        step = scheduler.plan()
        assert not step.orders
        commit(scheduler, step)
    assert [s.slot for s in scheduler.decoding] == [0, 1, 2]


def test_the_last_sequence_fills_a_hole_with_exactly_its_computed_tokens() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=8))
    first, _, last = (scheduler.add(make_request(key, 2, 20)) for key in range(3))
    commit(scheduler, scheduler.plan())
    commit(scheduler, scheduler.plan())
    scheduler.remove(first)
    step = scheduler.plan()
    assert step.orders == (Copy(source=2, target=0, length=3),)
    assert [p.sequence.key for p in step.slices] == [2, 1] and last.slot == 0


def test_sequences_that_end_together_are_not_copied() -> None:
    scheduler = scheduler_of(Limits(prefill_chunk=16))
    sequences = [scheduler.add(make_request(key, 2, 20)) for key in range(5)]
    commit(scheduler, scheduler.plan())
    for sequence in sequences[:4]:
        scheduler.remove(sequence)
    assert scheduler.plan().orders == (Copy(source=4, target=0, length=2),)


def test_a_sequence_removed_while_its_step_runs_takes_in_nothing() -> None:
    scheduler = scheduler_of(Limits())
    sequence = scheduler.add(make_request(0, 3))
    step = scheduler.plan()
    scheduler.remove(sequence)
    scheduler.commit(step, {})
    scheduler.check()
    assert (sequence.generated, scheduler.running) == (0, [])


def test_the_queue_is_bounded_and_says_so() -> None:
    scheduler = scheduler_of(Limits(max_queue=2, max_sequences=1))
    for key in range(2):
        scheduler.add(make_request(key, 1))
    with pytest.raises(Overloaded, match="2 requests are waiting already, the limit is 2; hint: send it again later"):
        scheduler.add(make_request(2, 1))
    scheduler.plan()
    scheduler.add(make_request(2, 1))  # one has left the queue


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "message"),
    [
        (7120, 2048, "prompt has 7,120 tokens and max_tokens is 2,048, but this engine holds 8,192 in all; "
                     "hint: send max_tokens of at most 1,072, or build the engine with --max-length 9168"),
        (8192, None, "prompt has 8,192 tokens, but this engine holds 8,192 with the answer; hint: shorten the prompt, "),
        (9000, 100, "or build the engine with --max-length 9100"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_numbers_and_the_remedy(
    prompt: int, max_tokens: int | None, message: str
) -> None:
    scheduler = scheduler_of(Limits(max_length=8192))
    with pytest.raises(TooLong) as refusal:
        scheduler.add(make_request(0, prompt, max_tokens))
    assert message in str(refusal.value) and isinstance(refusal.value, RequestError)
    assert not scheduler.waiting


def test_no_max_tokens_means_all_the_room_there_is() -> None:
    scheduler = scheduler_of(Limits(max_length=64))
    assert scheduler.add(make_request(0, 60, None)).max_tokens == 4
    assert scheduler.add(make_request(1, 60, 4)).max_tokens == 4
