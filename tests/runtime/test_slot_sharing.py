"""Prefixes of prompts that are found in slots, against what lies in memory. Run: pytest tests/runtime/test_slot_sharing.py"""

from __future__ import annotations

from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triune_runtime.kv.names import Prompt
from triune_runtime.kv.slot_room import place
from triune_runtime.kv.slots import Sharing, SlotStore
from triune_runtime.kv.windows import Window
from triune_runtime.runner import Copy, Order

LENGTH = 40
SALTS = (b"", b"one", None)
Entry = tuple[bytes | None, int, bool]  # salt, token, whether it was run with enough others
prompts = st.lists(st.integers(1, 2), min_size=1, max_size=30)


class Slots(RuleBasedStateMachine):
    """Memory is a list of entries a slot. Prompts are cut as the scheduler cuts them; answers come token by token."""

    @initialize(slots=st.integers(1, 6), unit=st.sampled_from([2, 3, 4, 8]), data=st.data())
    def begin(self, slots: int, unit: int, data: st.DataObject) -> None:
        self.chunk = data.draw(st.sampled_from([8, 10]))
        self.unit = min(unit, self.chunk)
        window = data.draw(st.sampled_from([None, Window(6, 12)]))
        if window is not None:
            self.unit = self.chunk
        self.window = window
        sharing = Sharing(unit=self.unit, chunk=self.chunk, windows=() if window is None else (window,))
        self.store = SlotStore(slots, LENGTH, sharing)
        self.memory: list[list[Entry]] = [[] for _ in range(slots)]
        self.texts: dict[int, list[int]] = {}
        self.prompts: dict[int, int] = {}  # their lengths
        self.salts: dict[int, bytes | None] = {}
        self.done: dict[int, int] = {}
        self.now = 0.0

    def follow(self) -> None:
        for order in self.store.orders():
            assert isinstance(order, Copy)
            source = self.memory[order.source]
            assert order.length <= len(source)
            assert self.window is None or self.window.keeps(len(source), order.length), "the source has dropped it"
            self.memory[order.target] = source[: order.length]

    @rule(prompt=prompts, salt=st.sampled_from(SALTS), members=st.integers(1, 2))
    def admit(self, prompt: list[int], salt: bytes | None, members: int) -> None:
        cached = self.store.admits(Prompt(prompt, salt), members)
        assert (cached is None) == (len(self.texts) + members > self.store.slots)
        if cached is None:
            return
        held = self.store.admit(Prompt(prompt, salt), members)
        assert held.cached == cached < len(prompt) and not (cached and salt is None)
        end = min(len(prompt), (cached // self.chunk + 1) * self.chunk)
        assert cached % self.chunk == 0 or end - cached >= self.unit, "what follows is run as it is not without"
        for slot in held.slots:
            assert slot not in self.texts
            self.texts[slot], self.prompts[slot], self.salts[slot], self.done[slot] = list(prompt), len(prompt), salt, 0
        first = held.slots[0]
        self.done[first] = cached
        for slot in held.slots[1:]:  # who waits is not followed: it is given back at once
            self.store.release(slot)
            for of in (self.texts, self.prompts, self.salts, self.done):
                del of[slot]
        self.run(first)

    def run(self, slot: int) -> None:
        """The next part of a prompt, or the next token."""
        self.follow()
        text, start = self.texts[slot], self.done[slot]
        in_prompt = start < self.prompts[slot]
        if start == len(text):
            text.append(1)
        end = min(self.prompts[slot], (start // self.chunk + 1) * self.chunk) if in_prompt else start + 1
        if self.window is not None:
            assert self.window.keeps(len(self.memory[slot]), start) or start == 0, "the buffer has dropped it"
        whole = in_prompt and end - start >= self.unit
        found = self.memory[slot][:start]
        assert found == [(self.salts[slot], token, seen[2]) for token, seen in zip(text[:start], found, strict=True)]
        assert all(seen[2] for seen in found) or start > self.prompts[slot] - self.unit
        self.memory[slot] = [*found, *((self.salts[slot], token, whole) for token in text[start:end])]
        self.done[slot] = end
        if in_prompt:
            self.store.settle(slot, text, end, together=True)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.texts)))
        if self.done[slot] < LENGTH:
            self.run(slot)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), keep=st.sampled_from([True, True, False]))
    def leave(self, data: st.DataObject, keep: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.texts)))
        if keep:
            self.store.settle(slot, self.texts[slot], self.done[slot], together=False)
        self.store.release(slot, keep=keep)
        for of in (self.texts, self.prompts, self.salts, self.done):
            del of[slot]

    @rule(seconds=st.sampled_from([1.0, 10.0, 400.0]))
    def rest(self, seconds: float) -> None:
        """What is not needed is gone from memory."""
        self.now += seconds
        for slot, needed in self.store.idle(self.now):
            assert slot not in self.texts, "it is in use"
            beyond = [(None, 0, False)] * (len(self.memory[slot]) - needed) if needed else []
            self.memory[slot] = [*self.memory[slot][:needed], *beyond]

    @rule()
    def arrange(self) -> None:
        decoding = {slot: self.done[slot] for slot in self.texts if self.done[slot] >= self.prompts[slot]}
        gaps = self.store.gaps(decoding)
        moves = self.store.arrange(decoding)
        assert bool(moves) == gaps
        for source, target in moves.items():
            for of in (self.texts, self.prompts, self.salts, self.done):
                of[target] = of.pop(source)  # type: ignore[attr-defined]
        assert not self.store.gaps([moves.get(slot, slot) for slot in decoding])

    @rule()
    def forget(self) -> None:
        self.store.forget()
        assert self.store.admits(Prompt([1] * 30), 1) in (None, 0)

    @invariant()
    def books_agree(self) -> None:
        self.store.check(list(self.texts))


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def store_of(slots: int = 4, unit: int = 4, chunk: int = 8) -> SlotStore:
    return SlotStore(slots, LENGTH, Sharing(unit=unit, chunk=chunk))


class Served(NamedTuple):
    """The slot of a prompt, how much of it was there, and what was copied for it."""

    slot: int
    cached: int
    orders: tuple[Order, ...] = ()


def served(store: SlotStore, prompt: list[int], salt: bytes | None = b"", *, leave: bool = True, chunk: int = 8) -> Served:
    """A prompt is run."""
    held = store.admit(Prompt(prompt, salt), 1)
    slot, at, orders = held.slots[0], held.cached, store.orders()
    while at < len(prompt):
        at = min(len(prompt), (at // chunk + 1) * chunk)
        store.settle(slot, prompt, at, together=True)
    if leave:
        store.settle(slot, [*prompt, 7, 7], len(prompt) + 2, together=False)
        store.release(slot)
    return Served(slot, held.cached, orders)


def test_the_same_prompt_again_takes_the_slot_as_it_is_and_runs_its_end() -> None:
    store, prompt = store_of(), list(range(21))
    found = [served(store, p) for p in (prompt, prompt, prompt[:17], prompt[:15])]
    assert found == [Served(0, 0), Served(0, 16), Served(0, 16), Served(1, 8, (Copy(0, 1, 8),))]


def test_a_prompt_that_begins_alike_gets_a_copy_and_leaves_the_other_where_it_is() -> None:
    store = store_of()
    one, other = [1] * 12 + [2] * 12, [1] * 12 + [3] * 12
    assert [served(store, p) for p in (one, other)] == [Served(0, 0), Served(1, 12, (Copy(0, 1, 12),))]
    assert [served(store, p) for p in (one, other)] == [Served(0, 20), Served(1, 20)], "both are there still"


def test_a_prompt_that_runs_still_can_be_copied_from() -> None:
    store = store_of()
    served(store, [1] * 24, leave=False)
    assert served(store, [1] * 12 + [2] * 8) == Served(1, 12, (Copy(0, 1, 12),))


def test_answers_are_not_shared_nor_what_was_run_in_short_parts() -> None:
    store = store_of()
    slot = store.admit(Prompt([1] * 10), 1).slots[0]
    store.settle(slot, [1] * 10, 8, together=True)
    store.settle(slot, [1] * 10, 10, together=True)  # two tokens
    store.settle(slot, [1] * 30, 30, together=False)
    assert store.admits(Prompt([1] * 30), 1) == 8


def test_a_slot_with_nothing_of_use_is_taken_first_then_the_one_that_was_used_longest_ago() -> None:
    store = store_of(slots=3)
    taken = [served(store, [n] * 12)[0] for n in (1, 2)]
    assert served(store, [1] * 12)[0] == taken[0]
    order = [served(store, [n] * 12)[0] for n in (3, 4, 5)]
    assert order == [2, taken[1], taken[0]]


def test_a_copy_that_nobody_waits_for_is_not_made_and_its_target_holds_nothing() -> None:
    store = store_of()
    served(store, [1] * 12 + [2] * 12)
    held = store.admit(Prompt([1] * 12 + [3] * 12), 1)
    assert held.cached == 12
    store.release(held.slots[0])
    assert store.orders() == () and store.admits(Prompt([1] * 12 + [3] * 12), 1) == 12
    assert store.admit(Prompt([1] * 12 + [4] * 12), 1).slots and store.orders()[0] == Copy(0, 1, 12)


def test_other_salts_and_none_share_nothing() -> None:
    store = store_of()
    served(store, [1] * 24, b"a")
    assert [store.admits(Prompt([1] * 24, salt), 1) for salt in (b"a", b"b", b"", None)] == [20, 0, 0, 0]
    served(store, [2] * 24, None)
    assert store.admits(Prompt([2] * 24, b""), 1) == 0


def test_where_nothing_is_shared_the_lowest_slot_is_taken_and_decoding_begins_at_the_first() -> None:
    store = store_of()
    store.shares = False
    assert [served(store, [1] * 24) for _ in range(3)] == [Served(0, 0)] * 3
    first, *others = (store.admit(Prompt([1]), 1).slots[0] for _ in range(3))
    store.release(first)
    assert store.arrange(dict.fromkeys(others, 1)) == {2: 0}


def test_a_buffer_with_a_window_gives_only_what_it_has_not_dropped() -> None:
    window = Window(16, 18)
    store = SlotStore(3, 100, Sharing(unit=8, chunk=8, windows=(window,)))
    prompt = [1] * 64
    served(store, prompt)
    assert store.admits(Prompt(prompt[:17]), 1) == 0, "positions before 49 are gone"
    assert store.admits(Prompt([*prompt, 2]), 1) == 64 and store.admits(Prompt(prompt[:60]), 1) == 0


@given(data=st.data(), slots=st.integers(1, 10))
def test_a_place_is_neighbouring_free_and_the_nearest_in_copies(data: st.DataObject, slots: int) -> None:
    kinds = data.draw(st.lists(st.sampled_from("dfo"), min_size=slots, max_size=slots))
    decoding = {n for n, kind in enumerate(kinds) if kind == "d"}
    free = data.draw(st.permutations([n for n, kind in enumerate(kinds) if kind == "f"]))
    found = set(place(decoding, slots, free))
    runs = [set(range(at, at + len(decoding))) for at in range(slots - len(decoding) + 1)]
    possible = [run for run in runs if run <= decoding | set(free)]
    assert found in possible or (found == decoding and not possible)
    assert not possible or len(found - decoding) == min(len(run - decoding) for run in possible)
