"""Run: pytest tests/runtime/test_slots.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_runtime.kv.slots import SlotPool


@given(size=st.integers(1, 12), choices=st.data())
def test_compacting_keeps_every_members_content_and_copies_no_more_than_needed(size: int, choices: st.DataObject) -> None:
    pool = SlotPool(size)
    memory: list[str | None] = [None] * size
    owners: dict[str, int] = {}
    for count in range(choices.draw(st.integers(0, 40))):
        action = choices.draw(st.sampled_from(["acquire", "release", "compact"]))
        if action == "acquire" and pool.free:
            slot = pool.acquire()
            assert slot == min(set(range(size)) - set(owners.values()))
            owners[f"owner {count}"] = slot
            memory[slot] = f"owner {count}"
        elif action == "release" and owners:
            pool.release(owners.pop(choices.draw(st.sampled_from(sorted(owners)))))
        elif action == "compact":
            before = dict(owners)
            moves = pool.compact(list(owners.values()))
            assert len(moves) == sum(slot >= len(owners) for slot in before.values())
            for source, target in moves.items():
                assert target not in before.values(), "copied over a live slot"
                memory[target] = memory[source]
            owners = {owner: moves.get(slot, slot) for owner, slot in owners.items()}
            assert sorted(owners.values()) == list(range(len(owners)))
        pool.check(list(owners.values()))
        assert pool.free == size - len(owners)
        assert all(memory[slot] == owner for owner, slot in owners.items())


def test_slots_behind_the_members_stay_where_they_are() -> None:
    pool = SlotPool(4)
    first, second, third, other = (pool.acquire() for _ in range(4))
    pool.release(first)
    assert pool.compact([second, third]) == {third: first}
    pool.check([first, second, other])


def test_misuse_is_caught() -> None:
    pool = SlotPool(1)
    pool.acquire()
    with pytest.raises(AssertionError, match="all 1 slots are held"):
        pool.acquire()
    pool.release(0)
    with pytest.raises(AssertionError, match="slot 0 is released but nobody holds it"):
        pool.release(0)
    with pytest.raises(AssertionError, match=r"slots \[\] are held, their holders say \[0\]"):
        pool.check([0])
