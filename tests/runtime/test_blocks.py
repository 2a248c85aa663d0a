"""Books of KV memory in shared blocks, against what their orders leave in memory. Run: pytest tests/runtime/test_blocks.py"""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triune_runtime.kv.blocks import BlockStore
from triune_runtime.kv.names import Names, Prompt
from triune_runtime.runner import CopyBlock, Table

SIZE = 4
SALTS = (b"", b"one", b"other", None)
prompts = st.lists(st.integers(1, 2), min_size=1, max_size=18)  # of two tokens, so that many begin alike


class Memory:
    """What lies in each block: tokens, and the salt of who wrote them. Nothing of it is hashed."""

    def __init__(self, blocks: int) -> None:
        self.blocks: list[list[tuple[bytes | None, int]]] = [[] for _ in range(blocks)]
        self.tables: dict[int, tuple[int, ...]] = {}

    def follow(self, store: BlockStore) -> None:
        for order in store.orders():
            if isinstance(order, Table):
                self.tables[order.slot] = order.blocks
            else:
                assert isinstance(order, CopyBlock)
                self.blocks[order.target] = list(self.blocks[order.source])

    def write(self, slot: int, position: int, entry: tuple[bytes | None, int]) -> None:
        block = self.blocks[self.tables[slot][position // SIZE]]
        del block[position % SIZE :]
        block.append(entry)

    def read(self, slot: int, length: int) -> list[tuple[bytes | None, int]]:
        return [self.blocks[self.tables[slot][at // SIZE]][at % SIZE] for at in range(length)]


class Books(RuleBasedStateMachine):
    """Prompts come, are run in parts, are answered, forked and left; every sequence must find its own tokens in its blocks."""

    @initialize(blocks=st.integers(5, 12), slots=st.integers(1, 5))
    def begin(self, blocks: int, slots: int) -> None:
        self.store, self.memory, self.slots = BlockStore(slots, blocks, SIZE), Memory(blocks), slots
        self.texts: dict[int, list[int]] = {}  # all tokens of who runs, by slot
        self.done: dict[int, int] = {}  # how many of them are written
        self.room: dict[int, int] = {}
        self.salts: dict[int, bytes | None] = {}
        self.waiting: dict[int, tuple[int, ...]] = {}  # leader -> who waits for its prompt
        self.asked: dict[tuple[tuple[int, ...], bytes | None], Prompt] = {}
        self.blocks = blocks

    @rule(prompt=prompts, salt=st.sampled_from(SALTS), members=st.integers(1, 3))
    def admit(self, prompt: list[int], salt: bytes | None, members: int) -> None:
        asked = self.asked.setdefault((tuple(prompt), salt), Prompt(tuple(prompt), salt))
        cached = self.store.admits(asked, members)
        assert self.store.admits(asked, members) == cached
        free = self.blocks - self.store.usage().used
        assert (cached is None) or len(self.texts) + sum(map(len, self.waiting.values())) + members <= self.slots
        if cached is None:
            return
        held = self.store.admit(asked, members)
        leader, *others = held.slots
        assert held.cached == cached < len(prompt) <= held.room
        assert held.cached // SIZE == held.reused_blocks
        assert held.new_blocks == -(-len(prompt) // SIZE) - held.reused_blocks + members - 1 <= free
        self.memory.follow(self.store)
        self.texts[leader], self.done[leader], self.room[leader] = list(prompt), cached, held.room
        self.salts |= dict.fromkeys(held.slots, salt)
        if others:
            self.waiting[leader] = tuple(others)

    @rule(prompt=prompts, salt=st.sampled_from(SALTS))
    def come_and_go(self, prompt: list[int], salt: bytes | None) -> None:
        """A prompt is run whole, read, and its sequence leaves."""
        before = set(self.texts)
        self.admit(prompt, salt, 1)
        for slot in set(self.texts) - before:
            self.write(slot, len(prompt))
            self.everyone_finds_its_own_tokens_written_by_its_own_kind()
            self.drop(slot, keep=True)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), count=st.integers(1, 7))
    def run(self, data: st.DataObject, count: int) -> None:
        """Of a prompt a part; of an answer the next token."""
        slot = data.draw(st.sampled_from(sorted(self.texts)))
        text, start = self.texts[slot], self.done[slot]
        end = min(start + count, len(text))
        if start == len(text):
            if self.blocks * SIZE <= start:
                return
            if start >= self.room[slot]:
                room = self.store.extend(slot, start + 1)
                if not room:
                    return
                self.room[slot] = room
            text.append(data.draw(st.integers(1, 2)))
            end = start + 1
        self.write(slot, end)
        if end == len(text) and slot in self.waiting:
            others = self.waiting.pop(slot)
            room = self.store.fork(slot, others, end)
            for other in others:
                self.texts[other], self.done[other], self.room[other] = list(text), end, room

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), keep=st.booleans())
    def leave(self, data: st.DataObject, keep: bool) -> None:
        self.drop(data.draw(st.sampled_from(sorted(self.texts))), keep=keep)

    def write(self, slot: int, end: int) -> None:
        self.memory.follow(self.store)
        assert end <= self.room[slot]
        for at in range(self.done[slot], end):
            self.memory.write(slot, at, (self.salts[slot], self.texts[slot][at]))
        self.done[slot] = end
        self.store.settle(slot, self.texts[slot], end, together=True)

    def drop(self, slot: int, *, keep: bool) -> None:
        for other in (slot, *self.waiting.pop(slot, ())):
            self.store.release(other, keep=keep)
            for of in (self.texts, self.done, self.room, self.salts):
                of.pop(other, None)

    @rule()
    def forget(self) -> None:
        self.store.forget()
        for prompt in ([1] * 18, [2] * 18):
            assert self.store.admits(Prompt(prompt), 1) in (None, 0)

    @invariant()
    def what_was_asked_before_is_answered_as_if_it_was_new(self) -> None:
        """What is kept with a prompt, and of the last question, is never out of date."""
        latest = [*self.asked.items()][:-4:-1]
        for (tokens, salt), asked in latest:  # the first one is what was asked last, before the rule
            for members in (1, 2):
                kept, new = (self.store.admits(asked, members), self.store.comes(asked)), Prompt(tokens, salt)
                assert (self.store.admits(new, members), self.store.comes(new)) == kept
        for _, asked in latest[:1]:
            self.store.admits(asked, 1)

    @invariant()
    def books_agree(self) -> None:
        waiting = [other for others in self.waiting.values() for other in others]
        self.store.check([*self.texts, *waiting])
        usage = self.store.usage()
        assert usage.used <= usage.blocks == self.blocks

    @invariant()
    def everyone_finds_its_own_tokens_written_by_its_own_kind(self) -> None:
        self.memory.follow(self.store)
        for slot, done in self.done.items():
            assert self.memory.read(slot, done) == [(self.salts[slot], token) for token in self.texts[slot][:done]]

    def teardown(self) -> None:
        for slot in [
            *getattr(self, "texts", ()),
            *(other for others in getattr(self, "waiting", {}).values() for other in others),
        ]:
            self.store.release(slot)
        if hasattr(self, "store"):
            self.store.check([])
            assert self.store.usage().used == 0, "a block has leaked"


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def computed(store: BlockStore, prompt: list[int], salt: bytes | None = b"", members: int = 1) -> tuple[int, ...]:
    """The slots of a prompt that is run at once."""
    slots = store.admit(Prompt(prompt, salt), members).slots
    store.settle(slots[0], prompt, len(prompt), together=True)
    return slots


def test_what_was_used_longest_ago_is_given_away_first_and_of_a_prompt_its_end() -> None:
    store = BlockStore(4, 6, SIZE)
    first, second, third = ([n] * 9 for n in (1, 2, 3))
    for prompt in (first, second):
        store.release(computed(store, prompt[:8])[0])
    store.release(computed(store, first[:8])[0])  # used again
    store.release(computed(store, third[:8])[0])  # takes the blocks without names
    assert [store.admits(Prompt(p), 1) for p in (first, second, third)] == [8, 8, 8]
    store.release(computed(store, [4] * 4)[0])
    assert [store.admits(Prompt(p), 1) for p in (first, second, third)] == [8, 4, 8], "the end of the second"


def test_who_is_sent_back_finds_what_the_others_left_of_it() -> None:
    store, text = BlockStore(2, 6, SIZE), [1] * 20
    (slot,) = computed(store, text)
    store.release(slot)
    (other,) = store.admit(Prompt([2] * 4), 1).slots
    assert store.extend(other, 8) == 8  # takes the free block, and the end of the text
    assert store.admits(Prompt(text), 1) is None and store.admits(Prompt(text[:17]), 1) is None
    store.release(other)
    assert store.admits(Prompt(text), 1) == 16


def test_the_last_token_is_always_run() -> None:
    store = BlockStore(4, 8, SIZE)
    store.release(computed(store, [1] * 8)[0])
    assert [store.admits(Prompt([1] * n), 1) for n in (4, 5, 8, 9)] == [3, 4, 7, 8]


def test_what_ends_within_a_block_is_found_too_and_its_block_copied() -> None:
    store = BlockStore(4, 12, SIZE)
    (slot,) = computed(store, [1] * 6)
    assert [store.admits(Prompt(prompt), 1) for prompt in ([1] * 5 + [2] * 9, [1] * 6 + [2], [1] * 3 + [2])] == [5, 6, 3]
    assert store.admits(Prompt([1] * 5 + [2], b"another's"), 1) == 0
    held = store.admit(Prompt([1] * 5 + [2] * 9), 1)
    assert (held.cached, held.reused_blocks, held.new_blocks) == (5, 1, 3)
    first, copied, second = store.orders()
    assert isinstance(first, Table) and isinstance(copied, CopyBlock) and isinstance(second, Table)
    assert (first.blocks[0], copied.target) == second.blocks[:2] and copied.source == first.blocks[1] != copied.target
    store.release(slot, keep=False)
    assert store.admits(Prompt([1] * 6 + [2]), 1) == 0, "what may be wrong is not copied"


def test_a_block_that_is_needed_for_something_else_is_not_copied() -> None:
    store = BlockStore(2, 2, SIZE)
    store.release(computed(store, [1] * 6)[0])
    assert store.admits(Prompt([1] * 6 + [2]), 1) == 4, "its second block is the last one that is free"


def test_who_asks_again_is_told_what_has_changed_meanwhile() -> None:
    store, short, long = BlockStore(3, 3, SIZE), Prompt([1] * 5), Prompt([2] * 8)
    (slot,) = computed(store, [1] * 4)
    assert store.admits(long, 1) == 0
    assert store.extend(slot, 8) == 8 and store.admits(long, 1) is None
    assert store.admits(short, 1) == 4
    store.forget()
    assert store.admits(short, 1) is None, "it needs two blocks now"


def test_a_shared_block_is_never_the_one_that_is_written() -> None:
    store = BlockStore(4, 12, SIZE)
    first, *others = computed(store, [1] * 6, members=3)
    store.fork(first, others, 6)
    tables = {order.slot: order.blocks for order in store.orders() if isinstance(order, Table)}
    shared = Counter(block for table in tables.values() for block in table)
    assert all(shared[table[0]] == 3 and shared[table[1]] == 1 for table in tables.values())


def test_a_store_that_shares_nothing_finds_nothing() -> None:
    store = BlockStore(4, 8, SIZE)
    store.shares = False
    store.release(computed(store, [1] * 8)[0])
    assert store.admits(Prompt([1] * 8), 1) == 0


def test_a_group_that_has_no_room_even_alone_is_known() -> None:
    store = BlockStore(8, 5, SIZE)
    assert store.longest_prompt(1) == store.longest == 20
    assert (store.longest_prompt(3), store.longest_prompt(7)) == (12, 0)
    assert store.admits(Prompt([1] * 12), 3) == 0 and store.admits(Prompt([1] * 13), 3) is None


def test_misuse_is_caught() -> None:
    store = BlockStore(2, 4, SIZE)
    (slot,) = store.admit(Prompt([1]), 1).slots
    with pytest.raises(AssertionError, match=r"slots \[0\] are held, not \[\]"):
        store.check([])
    store.release(slot)
    with pytest.raises(KeyError):
        store.release(slot)


def test_names_are_this_process_s_own_and_those_of_salts_are_not_those_of_tokens() -> None:
    tokens = list(range(12))

    def of(names: Names, tokens: list[int], salt: bytes = b"") -> tuple[bytes, ...]:
        return names.of(Prompt(tokens, salt))

    one, other = Names(4), Names(4)
    assert of(one, tokens) != of(other, tokens), "who knows the code cannot compute them"
    assert of(one, tokens) == of(one, tokens) and len({*of(one, tokens), *of(one, tokens, b"x")}) == 6
    assert [*of(one, tokens[:4]), *one.further(of(one, tokens[:4]), b"", tokens, 12)] == list(of(one, tokens))
    forged = of(one, tokens)[0] + bytes(16)  # the name before it, and four tokens
    assert of(one, [0] * 4, forged)[0] not in of(one, tokens)


@given(prompts=st.lists(st.tuples(prompts, st.sampled_from([b"", b"one"])), max_size=8))
def test_names_do_not_depend_on_what_was_named_before(prompts: list[tuple[list[int], bytes]]) -> None:
    names, first = Names(SIZE), dict[tuple[tuple[int, ...], bytes], bytes]()
    for tokens, salt in prompts:
        found = names.of(Prompt(tokens, salt))
        assert len(found) == len(tokens) // SIZE
        for count, name in enumerate(found, 1):
            key = tuple(tokens[: count * SIZE]), salt
            assert first.setdefault(key, name) == name
            assert list(names.further((), salt, tokens, count * SIZE))[-1] == name
    assert len(set(first.values())) == len(first)
