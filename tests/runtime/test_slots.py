"""Run: pytest tests/runtime/test_slots.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_runtime.kv.names import Prompt
from triune_runtime.kv.slots import SlotStore
from triune_runtime.runner import Copy

PROMPT = Prompt((1, 2, 3))


@given(size=st.integers(1, 12), choices=st.data())
def test_arranging_keeps_every_members_content_and_copies_no_more_than_needed(size: int, choices: st.DataObject) -> None:
    store = SlotStore(size, length=8)
    memory: list[str | None] = [None] * size
    owners: dict[str, int] = {}
    for count in range(choices.draw(st.integers(0, 40))):
        action = choices.draw(st.sampled_from(["admit", "release", "arrange"]))
        if action == "admit" and store.admits(PROMPT, 1) is not None:
            (slot,) = store.admit(PROMPT, 1).slots
            assert slot == min(set(range(size)) - set(owners.values()))
            owners[f"owner {count}"] = slot
            memory[slot] = f"owner {count}"
        elif action == "release" and owners:
            store.release(owners.pop(choices.draw(st.sampled_from(sorted(owners)))))
        elif action == "arrange":
            before = dict(owners)
            ragged = store.gaps(owners.values())
            moves = store.arrange(dict.fromkeys(owners.values(), 5))
            assert len(moves) == sum(slot >= len(owners) for slot in before.values()) and bool(moves) == ragged
            orders = store.orders()
            assert orders == tuple(Copy(source, target, 5) for source, target in moves.items()) and store.orders() == ()
            for source, target in moves.items():
                assert target not in before.values(), "copied over a live slot"
                memory[target] = memory[source]
            owners = {owner: moves.get(slot, slot) for owner, slot in owners.items()}
            assert sorted(owners.values()) == list(range(len(owners)))
        store.check(list(owners.values()))
        assert store.usage().used == len(owners) and (store.admits(PROMPT, size - len(owners) + 1) is None)
        assert all(memory[slot] == owner for owner, slot in owners.items())


def test_slots_behind_the_members_stay_where_they_are() -> None:
    store = SlotStore(4, length=8)
    first, second, third, other = store.admit(PROMPT, 4).slots
    store.release(first)
    assert store.arrange({second: 1, third: 1}) == {third: first}
    store.check([first, second, other])


def test_a_prompt_is_copied_to_all_that_wait_for_it() -> None:
    store = SlotStore(4, length=8)
    held = store.admit(PROMPT, 3)
    assert (held.slots, held.cached, held.room, held.new_blocks, held.reused_blocks) == ((0, 1, 2), 0, 8, 3, 0)
    assert store.fork(0, (1, 2), 3) == 8
    assert store.orders() == (Copy(0, 1, 3), Copy(0, 2, 3))


def test_misuse_is_caught() -> None:
    store = SlotStore(1, length=8)
    store.admit(PROMPT, 1)
    with pytest.raises(AssertionError, match="all 1 slots are held"):
        store.admit(PROMPT, 1)
    store.release(0)
    with pytest.raises(AssertionError, match="slot 0 is released but nobody holds it"):
        store.release(0)
    with pytest.raises(AssertionError, match=r"slots \[\] are held, their holders say \[0\]"):
        store.check([0])
