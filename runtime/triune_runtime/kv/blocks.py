"""KV memory in blocks that sequences share: prompts that were computed are found, and what nobody needs is given away last.

A full block has a name, which stands for all tokens up to its end (`names`). A prompt that begins with named blocks gets them,
and only its rest is computed. Where it goes on as some block begins, it gets a copy of that one (`beginnings`). Blocks that
nobody holds keep their names until they are taken: first those without one, then whichever was used longest ago, of one
sequence the last first, so that what is found stays a beginning. Blocks in use are never written: only full ones are shared,
and a sequence that goes on in the middle of one gets a copy of it.

Integers and hashes only; no sequence, no tensor.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..packing import TOKEN_BYTES, pack
from ..runner import CopyBlock, Order, Table
from .beginnings import Beginnings
from .names import Coming, Names, Prompt
from .store import Held, KvUsage


@dataclass(eq=False, slots=True)
class _Holding:
    """What one sequence has."""

    blocks: list[int]
    salt: bytes | None
    names: list[bytes]  # of its blocks, as far as they are known
    settled: int = 0  # its first so many blocks can be found
    prompt: int = 0  # tokens of the prompt, until the beginning of its last block can be found too


@dataclass(frozen=True, slots=True)
class _Known:
    """What of a prompt is there."""

    blocks: list[int]  # full ones
    needed: int  # more blocks for the sequences that ask
    source: int | None  # block to copy into the next one
    tokens: int  # in all


class BlockStore:
    """See `KvStore`. Memory is taken as sequences grow, and may run out while they do."""

    def __init__(self, slots: int, blocks: int, block_tokens: int) -> None:
        """
        Args:
            slots: sequences that can be held at once.
            blocks: in all.
            block_tokens: tokens of a block.
        """
        assert slots > 0 and blocks > 0, f"a store of {slots} slots and {blocks} blocks"
        self.shares = True
        self._slots, self._count, self._size = slots, blocks, block_tokens
        self._names, self._coming, self._beginnings = Names(block_tokens), Coming(), Beginnings(block_tokens)
        self._free_slots = list(range(slots))  # a heap
        self._refs = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))  # the next to be taken first
        self._holdings: dict[int, _Holding] = {}  # by slot
        self._found: dict[bytes, int] = {}  # name -> the block that ends with it
        self._name_of: dict[int, bytes] = {}  # the inverse
        self._orders: list[Order] = []
        self._asked: tuple[Prompt, int, _Known | None] | None = None  # what was last asked for, until something changes

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def longest(self) -> int:
        return self._count * self._size

    def longest_prompt(self, members: int) -> int:
        """See `KvStore.longest_prompt`: who waits for a prompt has a block already."""
        return max(self._count - members + 1, 0) * self._size

    def admits(self, prompt: Prompt, members: int) -> int | None:
        """See `KvStore.admits`."""
        known = self._known(prompt, members)
        return None if known is None else known.tokens

    def comes(self, prompt: Prompt) -> bool:
        """See `KvStore.comes`."""
        if prompt.salt is None or not self.shares:
            return False
        known = self._asked[2] if self._asked is not None and self._asked[0] is prompt else None
        following = len(self._match(prompt) if known is None else known.blocks)
        names = prompt.named(self._names)[: (len(prompt) - 1) // self._size]
        return following < len(names) and names[following] in self._coming

    def admit(self, prompt: Prompt, members: int) -> Held:
        """See `KvStore.admit`."""
        known, salt = self._known(prompt, members), prompt.salt
        assert known is not None, "there is no room: `admits` says so"
        self._asked = None
        for block in known.blocks:
            self._hold(block)
        if known.source is not None:
            self._hold(known.source)  # so that no other takes its place before it is copied
        new = [self._take() for _ in range(known.needed - members + 1)]
        first, *others = slots = tuple(heapq.heappop(self._free_slots) for _ in range(members))
        names = [] if salt is None or not self.shares else list(prompt.named(self._names))
        self._holdings[first] = _Holding([*known.blocks, *new], salt, names, len(known.blocks), len(prompt))
        self._coming.begin(first, names, len(known.blocks))
        for slot in others:  # for what of the prompt does not fill a block, and for the answer
            self._holdings[slot] = _Holding([self._take()], salt, [])
        if known.source is not None:
            self._orders.append(CopyBlock(known.source, new[0]))
            self._drop(known.source)
        self._tell(first)
        room = (len(known.blocks) + len(new)) * self._size
        return Held(slots, known.tokens, room, known.needed, len(known.blocks))

    def extend(self, slot: int, length: int) -> int:
        """See `KvStore.extend`."""
        self._asked = None
        blocks = self._holdings[slot].blocks
        more = self._needed(length) - len(blocks)
        if more > len(self._free):
            return 0
        if more > 0:
            blocks += [self._take() for _ in range(more)]
            self._tell(slot)
        return len(blocks) * self._size

    def fork(self, slot: int, targets: Sequence[int], length: int) -> int:
        """See `KvStore.fork`: full blocks are shared, the one that is not full is copied."""
        self._asked = None
        source = self._holdings[slot]
        full, rest = divmod(length, self._size)
        for target in targets:
            holding = self._holdings[target]
            (own,) = holding.blocks
            for block in source.blocks[:full]:
                self._hold(block)
            holding.blocks, holding.names = [*source.blocks[:full], own], source.names[:full]
            if rest:
                self._orders.append(CopyBlock(source.blocks[full], own))
            self._tell(target)
        return (full + 1) * self._size

    def settle(self, slot: int, tokens: Sequence[int], length: int, *, together: bool) -> None:
        """See `KvStore.settle`."""
        self._asked = None
        holding, full = self._holdings[slot], length // self._size
        self._coming.come(slot, full)
        ends = 0 < holding.prompt <= length
        if (full <= holding.settled and not ends) or holding.salt is None or not self.shares:
            return
        if full > len(holding.names):
            holding.names += self._names.further(holding.names, holding.salt, tokens, full * self._size)
        for number in range(holding.settled, full):
            name, block = holding.names[number], holding.blocks[number]
            if name not in self._found and block not in self._name_of:
                self._found[name], self._name_of[block] = block, name
        for number in range(holding.settled, self._needed(length) if ends else full):
            before = holding.names[number - 1] if number else None
            rest = pack(tokens[number * self._size : min((number + 1) * self._size, length)])
            self._beginnings.add(holding.blocks[number], before, holding.salt, rest)
        holding.settled = full
        if ends:
            holding.prompt = 0

    def release(self, slot: int, *, keep: bool = True) -> None:
        """See `KvStore.release`."""
        self._asked = None
        self._coming.end(slot)
        for block in reversed(self._holdings.pop(slot).blocks):
            if not keep:
                self._unname(block)
            self._drop(block)
        heapq.heappush(self._free_slots, slot)

    def forget(self) -> None:
        """See `KvStore.forget`."""
        self._asked = None
        self._coming.clear()
        self._found.clear()
        self._name_of.clear()
        self._beginnings.clear()
        for holding in self._holdings.values():
            holding.salt = None  # nor may what comes of it

    def gaps(self, decoding: Iterable[int]) -> bool:
        """See `KvStore.gaps`: a sequence may have any slot."""
        return False

    def arrange(self, decoding: Mapping[int, int]) -> dict[int, int]:
        """See `KvStore.arrange`."""
        return {}

    def orders(self) -> tuple[Order, ...]:
        """See `KvStore.orders`."""
        if not self._orders:
            return ()
        orders, self._orders = tuple(self._orders), []
        return orders

    def idle(self, now: float) -> tuple[tuple[int, int], ...]:
        """See `KvStore.idle`: blocks are memory of a device's, all of it asked for at the start."""
        return ()

    def usage(self) -> KvUsage:
        """See `KvStore.usage`."""
        return KvUsage(blocks=self._count, used=self._count - len(self._free), block_tokens=self._size)

    def check(self, holders: Sequence[int]) -> None:
        """See `KvStore.check`."""
        assert sorted(holders) == sorted(self._holdings), f"slots {sorted(self._holdings)} are held, not {sorted(holders)}"
        assert sorted([*self._holdings, *self._free_slots]) == list(range(self._slots)), "a slot has leaked"
        counted = [0] * self._count
        for holding in self._holdings.values():
            assert len(set(holding.blocks)) == len(holding.blocks), "a sequence has a block twice"
            for block in holding.blocks:
                counted[block] += 1
        assert counted == self._refs, "a block's holders were not counted"
        assert set(self._free) == {block for block, refs in enumerate(self._refs) if not refs}, "a block has leaked"
        assert {block: name for name, block in self._found.items()} == self._name_of, "a name leads to another block"
        self._beginnings.check()

    def _known(self, prompt: Prompt, members: int) -> _Known | None:
        """What is there for the sequences of a prompt; None: there is no room for them. Asked again, it is not looked for."""
        if self._asked is None or self._asked[0] is not prompt or self._asked[1] != members:
            self._asked = prompt, members, self._look_for(prompt, members)
        return self._asked[2]

    def _look_for(self, prompt: Prompt, members: int) -> _Known | None:
        blocks = self._match(prompt)
        needed = self._needed(len(prompt)) - len(blocks) + members - 1
        left = len(self._free) - sum(not self._refs[block] for block in blocks) - needed
        if members > len(self._free_slots) or left < 0:
            return None
        start = len(blocks) * self._size
        if prompt.salt is None or not self.shares:
            return _Known(blocks, needed, None, start)
        before = self._name_of[blocks[-1]] if blocks else None
        rest = prompt.packed[start * TOKEN_BYTES : min(start + self._size, len(prompt) - 1) * TOKEN_BYTES]
        found = self._beginnings.find(before, prompt.salt, rest)
        if found is None or (not self._refs[found[0]] and not left):  # the source's own place is needed
            return _Known(blocks, needed, None, start)
        return _Known(blocks, needed, found[0], start + found[1])

    def _match(self, prompt: Prompt) -> list[int]:
        """The blocks that hold the beginning of `prompt`, without its last token: that must be run."""
        blocks = list[int]()
        if prompt.salt is None or not self.shares or not self._found:
            return blocks
        for name in prompt.named(self._names)[: (len(prompt) - 1) // self._size]:
            if (block := self._found.get(name)) is None:
                break
            blocks.append(block)
        return blocks

    def _needed(self, length: int) -> int:
        return -(-length // self._size)

    def _hold(self, block: int) -> None:
        self._refs[block] += 1
        self._free.pop(block, None)

    def _drop(self, block: int) -> None:
        """One holds it no more."""
        self._refs[block] -= 1
        if not self._refs[block]:
            self._free[block] = None
            if block not in self._name_of and block not in self._beginnings:  # of no use to anybody else
                self._free.move_to_end(block, last=False)

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        self._unname(block)
        self._refs[block] = 1
        return block

    def _unname(self, block: int) -> None:
        if (name := self._name_of.pop(block, None)) is not None:
            del self._found[name]
        self._beginnings.drop(block)

    def _tell(self, slot: int) -> None:
        self._orders.append(Table(slot, tuple(self._holdings[slot].blocks)))
