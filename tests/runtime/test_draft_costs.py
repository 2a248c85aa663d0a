"""When drafts pay. Run: pytest tests/runtime/test_draft_costs.py"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes.runtime import TOKENS, VOCAB, chunks_of, make_manifest, scheduler_of
from triune_runtime.drafting.costs import Costs, Record, worthwhile
from triune_runtime.drafting.lookup import LookupDrafter
from triune_runtime.drafting.speculator import MOST_SEQUENCES, Speculator
from triune_runtime.manifest import Limits
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Immediate, Work
from triune_runtime.starting import step_loop


def costs(plain: dict[int, float], *check: float) -> Costs:
    """Of plain steps, and of runs with drafts of 1, 2, ... sequences."""
    return Costs(plain=plain, check=dict(enumerate(check, start=1)))


def test_one_sequence_has_drafts_where_they_give_more_tokens_a_second() -> None:
    assert worthwhile(costs({1: 1.0}, 1.5), 1, [(2.0, 0.0)]) == 1
    assert worthwhile(costs({1: 1.0}, 1.5), 1, [(2.0, 0.4)]) == 0  # within the margin
    assert worthwhile(costs({1: 1.0}, 2.5), 1, [(2.0, 0.0)]) == 0


def test_a_sequence_that_gains_must_gain_more_than_the_others_wait_for_it() -> None:
    batch = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.3}
    assert worthwhile(costs(batch, 1.5), 1, [(4.0, 0.0)]) == 1
    assert worthwhile(costs(batch, 1.5), 4, [(4.0, 0.0)]) == 0, "three would be twice as slow so that one is twice as fast"
    assert worthwhile(costs({1: 1.0, 2: 2.0}, 1.5, 3.0), 2, [(4.0, 0.0)] * 2) == 2


@given(
    offers=st.lists(st.tuples(st.floats(1.0, 5.0), st.floats(0.0, 2.0)), max_size=4),
    growth=st.floats(0.0, 1.0),
    check=st.floats(0.5, 3.0),
    more=st.integers(1, 4),
)
def test_no_other_number_of_the_first_offers_is_better(
    offers: list[tuple[float, float]], growth: float, check: float, more: int
) -> None:
    steps = [1 + growth * n for n in range(8)]
    known = costs(dict(enumerate(steps, start=1)), *(check * step for step in steps))
    sequences = len(offers) + more
    taken = worthwhile(known, sequences, offers)

    def speeds(number: int) -> float:
        seconds = sum(s for _, s in offers[:number]) + known.plain_s(sequences - number) + known.check_s(number)
        return math.prod(t / seconds for t in [t for t, _ in offers[:number]] + [1.0] * (sequences - number))

    assert speeds(taken) >= max(speeds(number) for number in range(len(offers) + 1)) / math.exp(0.1 * sequences) * 0.999
    assert not taken or speeds(taken) > speeds(0)


def test_times_are_learned_and_one_wild_one_changes_little() -> None:
    known = Costs()
    assert not known.known
    for _ in range(60):
        known.ran_plain(1, 0.01)
    known.ran_plain(1, 5.0)
    assert known.plain_s(1) == pytest.approx(0.012)
    assert known.plain_s(4) > known.plain_s(2) > known.plain_s(1)
    assert known.check_s(2) < 1.3 * known.plain_s(2), "thought cheap, so that it is tried"
    known.ran_check(2, 5.0)
    assert known.check_s(2) < 1.6 * known.plain_s(2), "nor does the first, slow one"
    for _ in range(100):
        known.ran_check(2, 0.05)
    assert known.check_s(2) == pytest.approx(0.05, rel=0.01) and known.check_s(1) == pytest.approx(0.05 / 1.2, rel=0.01)
    for _ in range(1000):
        known.ran_plain(1, 0.01)
    assert known.check_s(2) < 1.5 * known.plain_s(2), "what has not been run for long is tried again"


def test_a_record_learns_each_drafts_place_and_forgets() -> None:
    record = Record(0.8, most=2)
    for _ in range(50):
        record.add(2, 1)  # the first right, the second wrong
    assert 1.9 < record.expected(1) < 2 and record.expected(2) - record.expected(1) < 0.1
    for _ in range(300):
        record.fade()
    assert record.expected(2) == pytest.approx(1 + 0.8 + 0.64, abs=0.01)


class Looping(Immediate):
    """Says 3, 4, 5, 3, 4, 5, ... and takes `seconds` of the clock for it."""

    vocab_size, now = VOCAB, 0.0

    def __init__(self, check: float, growth: float) -> None:
        self.check, self.growth, self.checks = check, growth, 0

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        plain = sum(not item.drafts for item in work)
        self.checks += sum(item.drafts > 0 for item in work)
        for count, cost in ((plain, 1.0), (len(work) - plain, self.check)):
            self.now += cost * (1 + self.growth * (count - 1)) if count else 0
        rows = [i.start + len(i.tokens) - back for i in work for back in range(i.drafts, -1, -1)]
        return np.eye(VOCAB, dtype=np.float32)[[3 + row % 3 for row in rows]]

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Nothing is kept."""


def loop(sequences: int, *, check: float, growth: float, tokens: int = 60) -> tuple[Looping, float]:
    """The runner after all have said `tokens` tokens, and how long it took."""
    runner = Looping(check, growth)
    manifest = make_manifest(max_sequences=16, max_length=256)
    speculator = Speculator(4, 256, [LookupDrafter()], lambda: runner.now)
    engine = step_loop(manifest, runner, TOKENS, clock=lambda: runner.now, drafts=speculator)
    for key in range(sequences):
        engine.submit(Request(key=key, prompt=(3, 4, 5, 3), params=SamplingParams(max_tokens=tokens)))
    given_tokens = 0
    while engine.has_work:
        events = engine.step()
        given_tokens += sum(c.new_tokens for key in range(sequences) for c in chunks_of(events, key))
    assert given_tokens == sequences * tokens
    return runner, runner.now


def test_drafts_are_used_while_they_pay_and_left_alone_where_they_do_not() -> None:
    paying, seconds = loop(1, check=1.3, growth=0.2)
    assert paying.checks > 10 and seconds < 30
    dear, seconds = loop(1, check=5.0, growth=0.2)
    assert dear.checks <= 4 and seconds < 75, "tried, found to be dear, left alone"


def test_no_drafts_in_a_large_batch() -> None:
    assert loop(MOST_SEQUENCES + 1, check=0.1, growth=0.5)[0].checks == 0
    assert loop(4, check=1.3, growth=0.2)[0].checks > 10
    assert loop(4, check=6.0, growth=0.2)[0].checks <= 20, "some tries of four sequences"


def test_a_request_may_ask_for_fewer_drafts_or_none() -> None:
    for most in (0, 1, None):
        speculator, scheduler = Speculator(4, 64, [LookupDrafter()], lambda: 0.0), scheduler_of(Limits())
        params = SamplingParams(max_tokens=40, max_drafts=most)
        sequence = scheduler.add(Request(key=0, prompt=(3, 4, 5, 3, 4), params=params))
        speculator.costs = costs({1: 1.0}, 0.5)
        drafts = speculator.propose([sequence], [])
        assert drafts == ({} if most == 0 else {0: (5, 3, 4)[: most or 3]})


def test_no_drafts_where_their_run_would_pass_the_slots_end() -> None:
    runner = Looping(1.1, 0.2)
    speculator = Speculator(4, 32, [LookupDrafter()], lambda: runner.now)
    engine = step_loop(make_manifest(max_length=32), runner, TOKENS, clock=lambda: runner.now, drafts=speculator)
    engine.submit(Request(key=0, prompt=(3, 4, 5, 3)))
    while engine.has_work:
        for sequence in engine.scheduler.decoding:
            if speculator.propose([sequence], []):
                assert sequence.computed + 4 <= 32
        engine.step()
    assert runner.checks
