"""Clients share the slots: nobody starves, each client's order is kept. Run: pytest tests/runtime/test_fair_share.py"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.runtime import scheduler_of
from triune_runtime.errors import Overloaded
from triune_runtime.generation.scheduler import Scheduler
from triune_runtime.generation.waiting import FairShare
from triune_runtime.kv.slots import SlotStore
from triune_runtime.manifest import Limits
from triune_runtime.request import Request, SamplingParams

LIMITS = st.builds(
    Limits, max_sequences=st.integers(1, 6), prefill_chunk=st.integers(1, 8), max_length=st.just(64), max_queue=st.just(100)
)
SHARES = st.builds(FairShare, most_running=st.integers(1, 6), most_waiting=st.just(100))


def fair_scheduler(limits: Limits, fair: FairShare) -> Scheduler:
    return Scheduler(limits, SlotStore(limits.max_sequences, limits.max_length), fair=fair)


def request(key: int, client: str = "", prompt: int = 4, answer: int = 4) -> Request:
    return Request(key=key, client=client, prompt=tuple(range(prompt)), params=SamplingParams(max_tokens=answer))


def some(rng: random.Random, clients: str, count: int) -> list[Request]:
    return [request(key, rng.choice(clients), rng.randint(1, 40), rng.randint(1, 20)) for key in range(count)]


def step(scheduler: Scheduler) -> list[int]:
    """Run a step, in which every answer gets one token; the keys of those that got a slot in it."""
    before = {one.key for one in scheduler.running}
    planned = scheduler.plan()
    started = [one.key for one in sorted(scheduler.running, key=lambda one: one.slot or 0) if one.key not in before]
    started = [part.sequence.key for part in planned.slices if part.first and part.sequence.key in started]
    scheduler.commit(planned, {taker.key: [7] for part in planned.slices if part.samples for taker in part.takers})
    for sequence in scheduler.running:
        if sequence.generated >= sequence.max_tokens:
            scheduler.remove(sequence)
    scheduler.check()
    return started


def served(scheduler: Scheduler, asked: list[Request], rng: random.Random | None = None) -> list[int]:
    """The keys in the order in which they got a slot; all come at once, or now and then."""
    rest, order = list(asked), list[int]()
    while rest or scheduler.waiting or scheduler.running:
        while rest and (rng is None or rng.random() < 0.5):
            scheduler.add(rest.pop(0))
        order += step(scheduler)
    return order


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, seed=st.integers(0, 2**32))
def test_without_shares_who_comes_first_is_served_first_whoever_it_is(limits: Limits, seed: int) -> None:
    asked = some(random.Random(seed), "abc", 12)
    assert served(scheduler_of(limits), asked, random.Random(seed)) == list(range(12))


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, fair=SHARES, seed=st.integers(0, 2**32))
def test_everyone_is_served_and_each_clients_requests_in_their_order(limits: Limits, fair: FairShare, seed: int) -> None:
    asked = some(random.Random(seed), "abcd", 20)
    order = served(fair_scheduler(limits, fair), asked, random.Random(seed))
    assert sorted(order) == list(range(20))
    for client in "abcd":
        own = [key for key in order if asked[key].client == client]
        assert own == sorted(own)


@settings(max_examples=60, deadline=None)
@given(limits=LIMITS, fair=SHARES, seed=st.integers(0, 2**32))
def test_no_client_runs_more_than_it_may(limits: Limits, fair: FairShare, seed: int) -> None:
    scheduler = fair_scheduler(limits, fair)
    for one in some(random.Random(seed), "ab", 16):
        scheduler.add(one)
    while scheduler.waiting or scheduler.running:
        step(scheduler)
        assert all(count <= fair.most_running for count in Counter(s.request.client for s in scheduler.running).values())


@settings(max_examples=60, deadline=None)
@given(newcomers=st.integers(1, 8), answer=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_a_flood_of_new_clients_starves_nobody(newcomers: int, answer: int, seed: int) -> None:
    """Whoever waits is served in spite of others that come without end, each with a name that was never heard."""
    scheduler = fair_scheduler(Limits(max_sequences=1, prefill_chunk=8, max_length=64, max_queue=1000), FairShare.of(1, 1000))
    for key in range(3):  # of one client, so the last of them has the largest debt
        scheduler.add(request(key, "patient", 8, answer))
    missing, key, rng = {0, 1, 2}, 3, random.Random(seed)
    for _ in range(4000):
        if len(scheduler.waiting) < 3 + newcomers:
            scheduler.add(request(key, f"new {key}", rng.randint(1, 8), rng.randint(1, 20)))
            key += 1
        missing -= set(step(scheduler))
        if not missing:
            return
    raise AssertionError(f"{missing} never got a slot while {key} others came")


def test_a_newcomer_does_not_wait_for_a_clients_long_queue() -> None:
    """32 long requests of one client, then one of another: it starts in the next step."""
    scheduler = fair_scheduler(Limits(max_sequences=16, max_length=2048), FairShare.of(16, 256))
    for key in range(32):
        scheduler.add(request(key, "slow", 10, 1500))
    for _ in range(40):
        step(scheduler)
    scheduler.add(request(99, "new", 10, 8))
    assert 99 in [key for _ in range(2) for key in step(scheduler)]
    assert 99 not in [one.key for one in scheduler.waiting]


def test_two_clients_that_ask_without_end_get_the_same() -> None:
    """One asks for long answers and the other for short ones: in tokens they get the same, but for a request."""
    limits = Limits(max_sequences=4, prefill_chunk=16, max_length=64, max_queue=1000)
    scheduler, tokens = fair_scheduler(limits, FairShare(most_running=4, most_waiting=1000)), Counter[str]()
    for key in range(200):
        scheduler.add(request(2 * key, "long", 4, 40))
        scheduler.add(request(2 * key + 1, "short", 4, 4))
    for _ in range(400):
        for key in step(scheduler):
            tokens["short" if key % 2 else "long"] += 8 if key % 2 else 44  # of prompt and answer
    assert sum(tokens.values()) > 1000
    assert abs(tokens["long"] - tokens["short"]) <= 2 * 44


def test_what_was_not_used_is_not_charged() -> None:
    """Two clients ask for room for the same, one ends at once: it gets its next slots before the other."""
    scheduler = fair_scheduler(Limits(max_sequences=1, max_length=64), FairShare(most_running=1, most_waiting=99))
    asked = [scheduler.add(request(key, client, 4, 30)) for key, client in enumerate("abab")]
    step(scheduler)
    scheduler.remove(asked[0])  # a's, after one token
    while not asked[1].generated >= 30:
        step(scheduler)
    assert 2 in step(scheduler)


def test_a_request_for_more_answers_than_a_client_may_run_is_served_alone() -> None:
    scheduler = fair_scheduler(Limits(max_sequences=4, max_length=64), FairShare(most_running=2, most_waiting=99))
    scheduler.add(request(0, "a"))
    scheduler.add(request(1, "a"), [request(2, "a"), request(3, "a")])
    started = [(set(step(scheduler)), len(scheduler.running)) for _ in range(20)]
    assert {1} in [keys for keys, _ in started] and max(count for _, count in started) == 3


def test_a_full_queue_of_one_client_leaves_room_for_others() -> None:
    scheduler = fair_scheduler(Limits(max_sequences=1, max_length=64, max_queue=8), FairShare.of(1, 8))
    for key in range(6):
        scheduler.add(request(key, "a"))
    with pytest.raises(Overloaded, match="of this client"):
        scheduler.add(request(7, "a"))
    scheduler.add(request(8, "b"))
    assert not scheduler.waiting.first or scheduler.waiting.first.request.client == "a"


def test_a_client_that_was_away_has_no_claim_to_the_time_before() -> None:
    """b did nothing while a was served much: it gets every other slot, not all until it has had as much."""
    scheduler = fair_scheduler(Limits(max_sequences=1, max_length=64, max_queue=99), FairShare.of(1, 99))
    scheduler.add(request(1000, "b"))
    served(scheduler, [request(key, "a") for key in range(20)])
    for key in range(100, 110):
        scheduler.add(request(key, "a"))
        scheduler.add(request(key + 100, "b"))
    order = served(scheduler, [])
    assert 3 <= sum(key >= 200 for key in order[:8]) <= 5
