"""Run: pytest tests/runtime/test_outbox.py"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.runtime import TOKENS, VOCAB, text_of
from triune_runtime.errors import TriuneError
from triune_runtime.outbox import Item, Outbox, Pace
from triune_runtime.request import Chunk, Event, TokenLogprob, join
from triune_runtime.text.cut import Cut
from triune_runtime.text.cutter import TextCutter


def nothing(item: Item) -> None:
    """A sink for tests that look at deliveries instead."""


def opened(keys: range, *, leased: bool = False, sink: Callable[[Item], None] = nothing, **pace: Any) -> Outbox:
    outbox = Outbox(Pace(**pace))
    for key in keys:
        outbox.open(key, sink, leased=leased)
    return outbox


def piece(index: int, *, last: bool = False) -> Chunk:
    return Chunk(index, Cut((3,), 0, 1), 1, "stop" if last else None)


def drained(outbox: Outbox, now: float) -> list[tuple[int, Item]]:
    taken = []
    while (delivery := outbox.take(now)) is not None:
        taken.append((delivery.key, delivery.item))
    return taken


@given(
    tokens=st.lists(st.integers(0, VOCAB - 1), max_size=30), stop=st.sampled_from([(), ("好",), ("ab", "\n")]), data=st.data()
)
def test_joined_chunks_say_what_the_single_ones_said(tokens: list[int], stop: tuple[str, ...], data: st.DataObject) -> None:
    cutter = TextCutter(TOKENS, stop)
    chunks: list[Chunk] = []
    for token in tokens:
        cut = cutter.push(token)
        if cut is not None:
            logprob = TokenLogprob(token, -1.0 * len(chunks))
            chunks.append(Chunk(len(chunks), cut, 1, "stop" if cut.stop_reason else None, (logprob,)))
            if cut.stop_reason:
                break
    joined = list(chunks)
    while len(joined) > 1 and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(joined) - 2))
        joined[at : at + 2] = [join(joined[at], joined[at + 1])]
    assert text_of(joined) == text_of(chunks)
    assert sum(c.new_tokens for c in joined) == len(chunks)
    assert [entry for c in joined for entry in c.logprobs] == [entry for c in chunks for entry in c.logprobs]
    assert joined[-1:] == chunks[-1:] or joined[-1].cut.stop_reason == chunks[-1].cut.stop_reason


def test_a_first_chunk_goes_out_at_once_and_the_next_when_its_turn_comes() -> None:
    outbox = opened(range(10), max_chunks_per_s=100)
    outbox.put(Event(key, piece(0)) for key in range(10))
    assert [key for key, _ in drained(outbox, now=5.0)] == list(range(10))
    outbox.put(Event(key, piece(1)) for key in range(10))
    assert outbox.wake_at() == pytest.approx(5.1)
    assert drained(outbox, now=5.09) == []
    assert len(drained(outbox, now=5.11)) == 10


def test_requests_that_send_nothing_take_nobodys_turn() -> None:
    outbox = opened(range(200), max_chunks_per_s=100)
    outbox.put([Event(0, piece(0))])
    drained(outbox, now=1.0)
    outbox.put([Event(0, piece(1))])
    assert outbox.wake_at() == pytest.approx(1.01)


def test_chunks_merge_while_they_wait_and_their_numbers_have_no_gaps() -> None:
    outbox = opened(range(1), max_chunks_per_s=1)
    for index in range(3):
        outbox.put([Event(0, piece(index))])
    assert [(k, c.index, c.new_tokens) for k, c in drained(outbox, 0.0) if isinstance(c, Chunk)] == [(0, 0, 3)]
    outbox.put([Event(0, piece(3)), Event(0, piece(4))])
    assert [(c.index, c.cut.token_ids) for _, c in drained(outbox, 1.0) if isinstance(c, Chunk)] == [(1, (3, 3))]


def test_a_last_chunk_does_not_wait_and_takes_what_waited_with_it() -> None:
    outbox = opened(range(1), max_chunks_per_s=0.001)
    outbox.put([Event(0, piece(0))])
    drained(outbox, 0.0)
    outbox.put([Event(0, piece(1)), Event(0, piece(2, last=True))])
    ((_, item),) = drained(outbox, 0.0)
    assert isinstance(item, Chunk) and (item.new_tokens, item.finish_reason, item.index) == (2, "stop", 1)
    assert len(outbox) == 0 and outbox.wake_at() == math.inf


def test_nothing_follows_a_last_item() -> None:
    outbox = opened(range(2))
    error = TriuneError("gone")
    outbox.put([Event(0, error), Event(0, piece(0)), Event(1, piece(0, last=True))])
    outbox.fail_rest(TriuneError("late"))
    assert drained(outbox, 0.0) == [(0, error), (1, piece(0, last=True))]
    outbox.put([Event(0, piece(1))])
    assert drained(outbox, 0.0) == []


def test_the_stream_that_has_waited_longest_is_served_first() -> None:
    outbox = opened(range(3), max_chunks_per_s=math.inf)
    for now, key in enumerate((2, 0, 1)):
        outbox.put([Event(key, piece(0))])
        drained(outbox, float(now))
    outbox.put(Event(key, piece(1)) for key in range(3))
    assert [key for key, _ in drained(outbox, 9.0)] == [2, 0, 1]


def test_silence_after_a_chunk_ends_the_lease_once() -> None:
    outbox = opened(range(2), leased=True, ack_timeout_s=10.0)
    outbox.put([Event(0, piece(0))])
    drained(outbox, 1.0)
    assert outbox.wake_at() == 11.0
    assert outbox.expired(10.9) == []
    assert outbox.expired(11.0) == [0]
    assert outbox.expired(99.0) == []
    outbox.put([Event(0, piece(1))])
    assert drained(outbox, 99.0) == [], "nobody reads it"
    outbox.put([Event(0, piece(2, last=True))])
    assert len(drained(outbox, 99.0)) == 1


def test_an_acknowledgement_renews_the_lease_from_the_oldest_open_chunk() -> None:
    outbox = opened(range(1), leased=True, ack_timeout_s=10.0, max_chunks_per_s=math.inf)
    for now in range(3):
        outbox.put([Event(0, piece(now))])
        drained(outbox, float(now))
    outbox.acknowledge(0, 1)
    assert outbox.wake_at() == 12.0
    outbox.acknowledge(0)
    assert outbox.wake_at() == math.inf


def test_who_never_acknowledges_is_not_held_to_it_unless_leased() -> None:
    outbox = opened(range(1), ack_timeout_s=10.0, max_chunks_per_s=math.inf)
    outbox.put([Event(0, piece(0))])
    drained(outbox, 0.0)
    assert outbox.expired(1000.0) == []
    outbox.acknowledge(0)
    outbox.put([Event(0, piece(1))])
    drained(outbox, 1000.0)
    assert outbox.expired(1010.0) == [0]


def test_chunks_that_nobody_acknowledges_take_no_memory() -> None:
    outbox = opened(range(1), max_chunks_per_s=math.inf)
    for index in range(100):
        outbox.put([Event(0, piece(index))])
        drained(outbox, float(index))
    assert len(outbox._streams[0].unacknowledged) == 1


def test_no_timeout_means_no_lease() -> None:
    outbox = opened(range(1), leased=True, ack_timeout_s=None)
    outbox.put([Event(0, piece(0))])
    drained(outbox, 0.0)
    assert outbox.expired(1e9) == [] and outbox.wake_at() == math.inf


def test_a_stream_waits_for_acknowledgements_when_too_many_are_missing() -> None:
    outbox = opened(range(1), leased=True, max_unacknowledged=2, max_chunks_per_s=math.inf, ack_timeout_s=None)
    sent = 0
    for index in range(5):
        outbox.put([Event(0, piece(index))])
        sent += len(drained(outbox, float(index)))
    assert sent == 2 and outbox.wake_at() == math.inf
    outbox.acknowledge(0, 0)
    ((_, item),) = drained(outbox, 5.0)
    assert isinstance(item, Chunk) and (item.index, item.new_tokens) == (2, 3)


def test_a_key_in_use_cannot_be_opened_again() -> None:
    outbox = opened(range(1))
    with pytest.raises(AssertionError, match="request key 0 is in use"):
        outbox.open(0, nothing, leased=False)
