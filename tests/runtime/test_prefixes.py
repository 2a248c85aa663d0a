"""What others have seen go wrong in prefix caches, replayed on both stores through the loop that serves.

Run: pytest tests/runtime/test_prefixes.py
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.prefixes import BLOCK, CHUNK, KINDS, LENGTH, PROMPT, Failing, answer, computed, hits, make, request, serve
from fakes.runtime import STOPS, TOKENS, VOCAB, chunks_of, make_manifest, run_out, text_of
from triune_runtime.errors import TooLong
from triune_runtime.generation.groups import derived_seed
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.blocks import BlockStore
from triune_runtime.request import Event
from triune_runtime.runner import Rows
from triune_runtime.sampling.sampler import Sampler


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_prompt_again_computes_its_end_alone_and_says_the_same(kind: str) -> None:
    loop = make(kind)
    first = answer(serve(loop, request(1)), 1)
    before = computed(loop)
    again = answer(serve(loop, request(2)), 2)
    assert first == (again[0], 0) and again[1] == 32
    assert computed(loop) - before == 1 + 5
    assert hits(loop) == {"vllm:prefix_cache_queries_total": 66, "vllm:prefix_cache_hits_total": 32}


@pytest.mark.parametrize("kind", KINDS)
def test_switched_off_nothing_is_found_or_counted(kind: str) -> None:
    loop = make(kind, caching=False)
    events = serve(loop, request(1)) + serve(loop, request(2))
    assert answer(events, 1) == answer(events, 2) and answer(events, 2)[1] == 0
    assert set(hits(loop).values()) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_tenants_with_other_salts_find_nothing_of_each_other(kind: str) -> None:
    """vllm #17045, #44701: a salt is of the whole prompt, and no other key can pass for one. Nor may the lack of one."""
    loop = make(kind)
    found = [answer(serve(loop, request(key, salt=salt)), key)[1] for key, salt in enumerate(("", "a", "b", "a", "b", ""), 1)]
    assert found == [0, 0, 0, 32, 32, 32]


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_of_a_prompt_are_whole_after_the_prompt_was_cached(kind: str) -> None:
    """vllm #3251, #8268, #3914, #42019: what was cached has no rows, so nothing is taken, nor counted as looked up."""
    if kind == "blocks":  # its runner has no rows but the last
        return
    loop = make(kind)
    alone = chunks_of(serve(make(kind), request(1, prompt_logprobs=1)), 1)[0].scores
    serve(loop, request(1))
    scored = chunks_of(serve(loop, request(2, prompt_logprobs=1)), 2)[0]
    assert len(scored.scores) == 32 and scored.kv.reused_tokens == 0 and scored.scores == alone
    assert answer(serve(loop, request(3)), 3)[1] == 32
    assert hits(loop)["vllm:prefix_cache_queries_total"] == 66


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", range(1, 8))
def test_what_an_aborted_request_has_not_computed_is_not_found(kind: str, steps: int) -> None:
    """verl #4519, vllm #18411: it leaves in the middle of its prompt, or of its answer."""
    loop = make(kind)
    loop.submit(request(1))
    for _ in range(steps):
        loop.step()
    done = computed(loop)
    loop.abort(1)
    text, found = answer(serve(loop, request(2)), 2)
    assert found == min(done, 32) // CHUNK * CHUNK and text == answer(serve(make(kind), request(2)), 2)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_behind_a_stop_string_is_nobody_s_prefix(kind: str) -> None:
    """vllm #5543: an answer ends before the last token that was run; who goes on from it gets its own text."""
    loop = make(kind)
    whole = answer(serve(make(kind), request(1, tokens=20)), 1)[0]
    stop = next(letter for letter in whole[3:] if letter != "\ufffd")
    serve(loop, request(1, tokens=20, stop=(stop,)))
    for key, prompt in enumerate((PROMPT[:20], PROMPT, (*PROMPT, 5, 6, 7, 8, 9)), 2):
        assert answer(serve(loop, request(key, prompt)), key)[0] == answer(serve(make(kind), request(key, prompt)), key)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_answers_the_prompt_is_counted_as_found_once(kind: str) -> None:
    """sglang #5525, #25972: cached tokens are a part of the prompt's, whatever n is."""
    loop = make(kind)
    serve(loop, request(1))
    group = [request(key, temperature=1.0, seed=derived_seed(3, key)) for key in (2, 3, 4)]
    loop.submit_group(group)
    events = run_out(loop)
    assert [answer(events, key)[1] for key in (2, 3, 4)] == [32, 0, 0]
    assert hits(loop) == {"vllm:prefix_cache_queries_total": 66, "vllm:prefix_cache_hits_total": 32}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_found_while_it_waited_is_looked_up_again_when_it_comes_in(kind: str) -> None:
    """vllm #18957: a count that was kept from an earlier look was wrong when others had taken the blocks meanwhile."""
    loop = make(kind, slots=2, blocks=24)
    serve(loop, request(1, tokens=1))
    loop.submit(request(2, tuple(reversed(PROMPT)), 40))
    loop.step()
    loop.submit(request(3, tuple(3 + n % 7 for n in range(40)), 30))
    loop.step()
    loop.submit(request(4))  # waits, and its prefix goes
    events = run_out(loop)
    assert answer(events, 4)[0] == answer(serve(make(kind), request(4)), 4)[0]


@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_left_to_be_run_behind_a_prefix_gives_the_same_token(kind: str, length: int) -> None:
    """sglang #29633, tenstorrent/vllm #415: a rest of one token, of a whole block, and all between."""
    loop = make(kind)
    serve(loop, request(1))
    prompt = PROMPT[:length] if length <= 33 else (*PROMPT, *range(2, 2 + length - 33))
    text, found = answer(serve(loop, request(2, prompt)), 2)
    assert text == answer(serve(make(kind), request(2, prompt)), 2)[0] and found < length


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_failed_leaves_nothing_to_be_found(kind: str) -> None:
    loop = make(kind)
    serve(loop, request(1))
    loop.submit(request(2))
    loop.runner.fails = True  # type: ignore[attr-defined]
    assert [event.last for event in run_out(loop)] == [True]
    loop.runner.fails = False  # type: ignore[attr-defined]
    text, found = answer(serve(loop, request(3)), 3)
    assert found == 0 and text == answer(serve(make(kind), request(3)), 3)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_whose_logits_were_no_numbers_is_not_handed_on(kind: str) -> None:
    loop = make(kind)
    loop.runner.poisoned = True  # type: ignore[attr-defined]
    events = serve(loop, request(1))
    assert len(events) == 1 and "engine failed" in str(events[0].item)
    loop.runner.poisoned = False  # type: ignore[attr-defined]
    assert answer(serve(loop, request(2)), 2)[1] == 0


def test_who_began_with_the_kv_of_a_step_that_failed_in_flight_fails_with_it() -> None:
    class Late(Failing):
        """A step fails when it is collected; the next one is in flight by then."""

        def launch(self, *args: Any, **more: Any) -> Any:
            flight = super().launch(*args, **more)
            if len(args[0]) == 1 and len(args[0][0].tokens) > 8:

                def fail() -> Rows:
                    flight.collected = True  # type: ignore[attr-defined]
                    raise RuntimeError("late")

                flight.collect = fail  # type: ignore[method-assign]
            return flight

    manifest = make_manifest(max_sequences=4, max_length=LENGTH, prefill_chunk=16, max_queue=9)
    runner = Late(VOCAB, 60, BLOCK, STOPS, depth=1)
    loop = StepLoop(manifest, runner, TOKENS, store=BlockStore(4, 60, BLOCK), sampler=Sampler(VOCAB), clock=lambda: 0.0)
    loop.submit(request(1, PROMPT[:16]))
    loop.step()
    loop.submit(request(2, PROMPT[:17]))
    loop.submit(request(3, (9, 9)))
    events = loop.step()
    assert {event.key for event in events if isinstance(event.item, Exception)} == {1, 2}
    assert answer(events + run_out(loop), 3)[1] == 0


def test_more_answers_than_blocks_can_ever_hold_are_refused_and_not_waited_for() -> None:
    loop = make("blocks", slots=8, blocks=10)
    with pytest.raises(TooLong, match="prompt has 30 tokens, but this engine holds 28 with 4 answers") as caught:
        loop.submit_group([request(key, PROMPT[:30]) for key in range(4)])
    assert caught.value.param == "n"
    loop.submit_group([request(key, PROMPT[:28], 2) for key in range(4)])
    assert sum(event.last for event in run_out(loop)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_what_64_share_counts_once_in_what_is_told_of_the_memory(kind: str) -> None:
    loop = make(kind, slots=64, blocks=100)
    serve(loop, request(0))
    for key in range(1, 65):
        loop.submit(request(key))
    for _ in range(12):
        loop.step()
        told = loop.snapshot()
        assert 0 <= told.tokens <= told.kv.blocks * told.kv.block_tokens
    run_out(loop)
    assert loop.snapshot().tokens == 0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_text_depends_on_what_lies_in_the_slots(seed: int) -> None:
    """Conversations over few beginnings, of several tenants, in few slots; some leave, some ask for several answers."""
    rng = random.Random(seed)
    chunk, slots = rng.choice([1, 3, 8]), rng.randint(2, 6)
    loop = make("slots", slots=slots, prefill_chunk=chunk)
    beginnings = [tuple(rng.randrange(2, VOCAB) for _ in range(rng.randint(3, 30))) for _ in range(2)]
    groups = []
    for key in range(0, 10 * rng.randint(2, 12), 10):
        prompt = (*rng.choice(beginnings), *(rng.randrange(2, 6) for _ in range(rng.randint(1, 9))))
        salt, tokens = rng.choice(["", "", "x"]), rng.choice([1, 9, 20])
        members = range(key, key + rng.choice([1, 1, 2]))
        groups.append(
            [request(n, prompt, tokens, salt, temperature=1.0, seed=n, ignore_eos=rng.random() < 0.5) for n in members]
        )
    arrivals, events, gone = list(groups), list[Event](), set[int]()
    while arrivals or loop.has_work:
        if arrivals and rng.random() < 0.3:
            loop.submit_group(arrivals.pop(0))
        if rng.random() < 0.05:
            left = loop.abort(rng.choice(rng.choice(groups)).key)
            gone |= {event.key for event in left}
        events += loop.step()
        loop.scheduler.check()
    for one in (one for group in groups for one in group):
        if one.key not in gone:
            alone = make("slots", slots=1, prefill_chunk=chunk, caching=False)
            assert text_of(chunks_of(events, one.key)) == text_of(chunks_of(serve(alone, one), one.key))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_of_prompts_that_come_at_once_each_shared_beginning_is_computed_once(kind: str, data: st.DataObject) -> None:
    """Whatever comes at the same time: as if each had come when the one before it was answered."""
    shared, count = data.draw(st.integers(8, 70)), data.draw(st.integers(2, 6))
    beginning = tuple(2 + n % 19 for n in range(shared))
    prompts = [beginning + tuple(data.draw(st.lists(st.integers(2, 21), min_size=1, max_size=12))) for _ in range(count)]
    step = data.draw(st.sampled_from([CHUNK, 4 * CHUNK])) if kind == "blocks" else CHUNK
    turns, together = (make(kind, slots=6, blocks=300, max_step_tokens=step) for _ in range(2))
    asked = [request(key, prompt, 1) for key, prompt in enumerate(prompts)]
    expected = [answer(serve(turns, one), one.key)[0] for one in asked]
    events = serve(together, *asked)
    assert [answer(events, key)[0] for key in range(count)] == expected
    # Slots keep but one beginning each, and nobody waits for what ends within a block.
    allowed = count * (CHUNK if kind == "slots" else BLOCK - 1)
    assert computed(together) <= computed(turns) + allowed


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_nobody_waits_for_what_no_longer_comes(kind: str, data: st.DataObject) -> None:
    """Who is waited for leaves, fails, or is sent back: the others compute it themselves."""
    loop = make(kind, slots=4, blocks=data.draw(st.sampled_from([30, 60])))
    for key in range(5):
        loop.submit(request(key, PROMPT[: data.draw(st.integers(20, 33))], data.draw(st.integers(1, 20))))
    events = list[Event]()
    for _ in range(data.draw(st.integers(1, 12))):
        events += loop.step()
        match data.draw(st.sampled_from(["go on", "leave", "fail"])):
            case "leave":
                events += loop.abort(data.draw(st.integers(0, 4)))
            case "fail":
                loop.runner.fails = True  # type: ignore[attr-defined]
                events += loop.step()
                loop.runner.fails = False  # type: ignore[attr-defined]
    events += run_out(loop)
    assert {event.key for event in events if event.last} == set(range(5))
    loop.scheduler.check()
