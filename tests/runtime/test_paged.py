"""The loop over KV memory in shared blocks: prefixes found, sequences sent back, steps in flight.

Run: pytest tests/runtime/test_paged.py
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.paged import PagedRunner, logits_of
from fakes.runtime import STOPS, TOKENS, VOCAB, chunks_of, make_manifest, run_out, text_of
from triune_runtime.errors import TooLong
from triune_runtime.generation.groups import derived_seed
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.blocks import BlockStore
from triune_runtime.kv.names import Prompt
from triune_runtime.request import Event, KvCounts, Request, SamplingParams
from triune_runtime.sampling.sampler import Sampler

LENGTH, BLOCK = 64, 4
GREEDY = frozenset({"greedy"})
DRAWING = GREEDY | {"temperature", "top_k", "top_p", "min_p", "logit_bias", "min_tokens", "presence_penalty"}


class Paged:
    """A loop over a paged store and runner."""

    def __init__(
        self,
        blocks: int,
        *,
        slots: int = 6,
        depth: int = 1,
        chunk: int = 8,
        budget: int | None = None,
        chooses: frozenset[str] = GREEDY,
        clock: Any = lambda: 0.0,
    ) -> None:
        manifest = make_manifest(max_sequences=slots, max_length=LENGTH, prefill_chunk=chunk, max_queue=1000)
        manifest = replace(manifest, limits=replace(manifest.limits, max_step_tokens=budget))
        self.store = BlockStore(slots, blocks, BLOCK)
        self.runner = PagedRunner(VOCAB, blocks, BLOCK, STOPS, depth=depth, chooses=chooses)
        self.loop = StepLoop(manifest, self.runner, TOKENS, store=self.store, sampler=Sampler(VOCAB), clock=clock)

    def serve(self, requests: Sequence[Request]) -> list[Event]:
        for request in requests:
            self.loop.submit(request)
        return run_out(self.loop)


def random_group(rng: random.Random, key: int, prefixes: Sequence[tuple[int, ...]]) -> list[Request]:
    """One to three requests for a prompt that may begin as others do."""
    prompt = (*rng.choice(prefixes), *(rng.randrange(2, VOCAB) for _ in range(rng.randint(1, 12))))[:30]
    params = SamplingParams(
        max_tokens=rng.choice([1, 5, 20, 30]),
        temperature=rng.choice([0.0, 0.0, 1.0]),
        top_k=rng.choice([0, 0, 5]),
        top_p=rng.choice([1.0, 0.8]),
        min_tokens=rng.choice([0, 0, 3]),
        logit_bias=rng.choice([(), ((5, 2.0),)]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
        presence_penalty=rng.choice([0.0, 0.0, 0.5]),
        stop=rng.choice([(), (), ("ab",)]),
        ignore_eos=rng.random() < 0.5,
        seed=rng.randrange(100),
        logprobs=rng.choice([None, None, 1]),
    )
    return [
        Request(
            key=key + index,
            prompt=prompt,
            params=replace(params, seed=derived_seed(params.seed, index)),
            stream=rng.random() < 0.8,
        )
        for index in range(rng.choice([1, 1, 1, 2, 3]))
    ]


def whole(events: Sequence[Event], key: int) -> tuple[Any, ...]:
    chunks = chunks_of(events, key)
    entries = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    return text_of(chunks), sum(c.new_tokens for c in chunks), chunks[-1].finish_reason, chunks[-1].cut.stop_reason, entries


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), depth=st.sampled_from([0, 1]), chooses=st.sampled_from([GREEDY, DRAWING]))
def test_no_answer_depends_on_shared_prefixes_on_being_sent_back_on_steps_in_flight_or_on_who_draws(
    seed: int, depth: int, chooses: frozenset[str]
) -> None:
    rng = random.Random(seed)
    blocks = rng.randint(LENGTH // BLOCK, 40)
    chunk = rng.choice([1, 3, 4, 8, 16])
    paged = Paged(
        blocks, slots=rng.randint(3, 8), depth=depth, chunk=chunk, budget=rng.choice([None, chunk * 3]), chooses=chooses
    )
    loop = paged.loop
    prefixes = [(), *(tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(4, 20))) for _ in range(2))]
    groups = [random_group(rng, 10 * number, prefixes) for number in range(rng.randint(2, 10))]
    arrivals, events, aborted = list(groups), list[Event](), set[int]()
    while arrivals or loop.has_work:
        if arrivals and rng.random() < 0.4:
            loop.submit_group(arrivals.pop(0))
        if rng.random() < 0.05:
            ended = loop.abort(rng.choice(rng.choice(groups)).key)
            aborted |= {event.key for event in ended}
            events += ended
        events += loop.step()
        loop.scheduler.check()
    usage = paged.store.usage()
    assert usage.used == 0 and loop.snapshot().tokens == 0, "a block has leaked"
    for request in (one for group in groups for one in group):
        last = [event.last for event in events if event.key == request.key]
        assert last == [False] * (len(last) - 1) + [True]
        if request.key not in aborted:
            alone = Paged(LENGTH // BLOCK, slots=1, depth=0, chunk=chunk)
            assert whole(events, request.key) == whole(alone.serve([request]), request.key)


def greedy(key: int, prompt: tuple[int, ...], tokens: int = 12, **fields: Any) -> Request:
    return Request(key=key, prompt=prompt, params=SamplingParams(max_tokens=tokens, ignore_eos=True, **fields))


def by_hand(prompt: Sequence[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(tokens, VOCAB, STOPS).argmax()))
    return tokens[len(prompt) :]


def test_a_prompt_that_was_computed_is_found_and_only_its_rest_is_run() -> None:
    now = [0.0]
    paged = Paged(40, chunk=8, clock=lambda: now[0])
    prompt = tuple(2 + n % 20 for n in range(21))
    paged.serve([greedy(1, prompt, 1)])
    assert paged.runner.computed == 21
    now[0] = 5.0
    paged.loop.submit(greedy(2, prompt, 1))
    now[0] = 7.0
    events = run_out(paged.loop)
    assert paged.runner.computed == 21 + 1, "five blocks of four tokens were there"
    (chunk,) = chunks_of(events, 2)
    assert chunk.new_tokens == 1 and chunk.kv == KvCounts(new_blocks=1, reused_blocks=5, reused_tokens=20)
    updates = paged.loop.metrics.drain()
    waited = [value for u in updates if u.family == "vllm:request_queue_time_seconds" for value in u.observations]
    assert waited == [0.0, 2.0], "a request whose prompt is partly there has waited too"
    computed = sum(u.value for u in updates if u.family == "vllm:prompt_tokens_total")
    assert computed == 22


def test_another_salt_shares_nothing() -> None:
    store, prompt = BlockStore(4, 20, BLOCK), tuple(range(9))
    held = store.admit(Prompt(prompt, b"a"), 1)
    store.settle(held.slots[0], prompt, 9, together=True)
    assert store.admits(Prompt(prompt, b"a"), 1) == 8 and store.admits(Prompt(prompt, b"b"), 1) == 0


def test_who_is_sent_back_goes_on_where_it_was_and_is_told_nothing_twice() -> None:
    """Three answers of 30 tokens over 18 blocks: together they need 24."""
    paged = Paged(18, slots=3, depth=1)
    requests = [greedy(key, (3 + key, 5, 7), 29) for key in range(3)]
    for request in requests:
        paged.loop.submit(request)
    oldest, *_, youngest = paged.loop.scheduler.waiting
    events = list[Event]()
    while paged.loop.has_work:
        events += paged.loop.step()
    assert oldest.turn == 0 and youngest.turn > 0, "the youngest give way to the others"
    for request in requests:
        chunks = chunks_of(events, request.key)
        assert text_of(chunks) == TOKENS.join(by_hand(request.prompt, 29)).decode("utf-8", "replace")
        assert sum(chunk.new_tokens for chunk in chunks) == 29
    started = [u for u in paged.loop.metrics.drain() if u.family == "vllm:request_queue_time_seconds"]
    assert len(started[0].observations) == 3, "each has waited once, however often it was sent back"


def test_a_step_is_launched_before_the_tokens_of_the_one_before_are_known() -> None:
    paged = Paged(40, depth=1)
    paged.loop.submit(greedy(1, (3, 4, 5), 5))
    assert paged.loop.step() == []  # the prompt is in flight
    known = []
    while paged.loop.has_work:
        events = paged.loop.step()
        known.append((sum(c.new_tokens for c in chunks_of(events, 1)), paged.runner.computed))
    # When the first token comes, the run that it is fed to has been launched already.
    assert known[0] == (1, 4) and known[-1][1] == 3 + 4, "no token is run beyond the last"


@pytest.mark.parametrize("option", [{"temperature": 1.0}, {"logprobs": 1}, {"repetition_penalty": 1.2}, {"stop": ("zz",)}])
def test_what_needs_the_host_between_two_tokens_waits_for_it_and_others_do_not(option: dict[str, Any]) -> None:
    paged = Paged(60, depth=1)
    overlapping, other = greedy(1, (3, 4), 10), greedy(2, (5, 6), 10, **option)
    events = paged.serve([overlapping, other])
    for request in (overlapping, other):
        alone = Paged(40, slots=1, depth=0)
        assert whole(events, request.key) == whole(alone.serve([request]), request.key)


def test_a_prompt_takes_as_many_cuts_as_the_step_has_room_for() -> None:
    paged = Paged(40, chunk=4, budget=16, depth=0)
    paged.loop.submit(greedy(1, tuple(2 + n % 20 for n in range(21)), 1))
    paged.loop.step()
    assert paged.runner.computed == 16
    paged.loop.step()
    assert paged.runner.computed == 21


def test_a_request_longer_than_all_blocks_is_refused_with_the_numbers() -> None:
    paged = Paged(6, slots=2)
    with pytest.raises(TooLong, match="prompt has 30 tokens, but this engine holds 24 with the answer"):
        paged.loop.submit(greedy(1, (3,) * 30))
