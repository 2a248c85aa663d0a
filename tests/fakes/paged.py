"""KV memory in blocks that sequences share, and a runner without a model whose memory lies there. Integers and hashes only.

The store finds prompts that others have computed, takes blocks from whoever was used longest ago, and runs out of them. The
runner keeps the tokens that were written into each block, and its logits are a hash of what a sequence's blocks hold when it
reads them: so a block that is shared wrongly, given away too early or not copied shows at once, as other tokens.
"""

from __future__ import annotations

import heapq
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triune_runtime.kv.store import Held, KvUsage
from triune_runtime.runner import Best, Copy, CopyBlock, Flight, Order, Rows, Table, Want, Work

NOTHING = -1  # what a block holds where nothing was written


class BlockStore:
    """See `KvStore`."""

    def __init__(self, slots: int, blocks: int, block_tokens: int) -> None:
        self._size, self._count, self._slots = block_tokens, blocks, slots
        self._free_slots = list(range(slots))
        self._refs = [0] * blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))  # the next to be taken first
        self._tables: dict[int, list[int]] = {}
        self._roots: dict[int, int] = {}  # slot -> where its chain begins
        self._ids: dict[tuple[int, object], int] = {}  # (chain up to a block, its tokens) -> the chain with it
        self._found: dict[int, int] = {}  # chain -> the block that ends it
        self._chains: dict[int, int] = {}  # the inverse
        self._orders: list[Order] = []

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def longest(self) -> int:
        return self._count * self._size

    def admits(self, prompt: Sequence[int], members: int, salt: bytes = b"") -> int | None:
        matched = self._match(prompt, self._id(0, salt))
        needed = self._needed(len(prompt)) - len(matched) + members - 1
        available = len(self._free) - sum(not self._refs[block] for block in matched)
        return len(matched) * self._size if needed <= available and members <= len(self._free_slots) else None

    def admit(self, prompt: Sequence[int], members: int, salt: bytes = b"") -> Held:
        root = self._id(0, salt)
        matched = self._match(prompt, root)
        for block in matched:
            self._hold(block)
        new = [self._take() for _ in range(self._needed(len(prompt)) - len(matched))]
        slots = tuple(heapq.heappop(self._free_slots) for _ in range(members))
        self._tables[slots[0]] = [*matched, *new]
        for slot in slots[1:]:  # for what of the prompt does not fill a block, and for the answer
            self._tables[slot] = [self._take()]
        self._roots |= dict.fromkeys(slots, root)
        self._tell(slots[0])
        room = len(self._tables[slots[0]]) * self._size
        return Held(slots, len(matched) * self._size, room, len(new) + members - 1, len(matched))

    def extend(self, slot: int, length: int) -> int:
        table = self._tables[slot]
        more = self._needed(length) - len(table)
        if more > len(self._free):
            return 0
        if more > 0:
            table += [self._take() for _ in range(more)]
            self._tell(slot)
        return len(table) * self._size

    def fork(self, slot: int, targets: Sequence[int], length: int) -> int:
        full, rest = divmod(length, self._size)
        for target in targets:
            (own,) = self._tables[target]
            for block in self._tables[slot][:full]:
                self._hold(block)
            self._tables[target] = [*self._tables[slot][:full], own]
            if rest:
                self._orders.append(CopyBlock(self._tables[slot][full], own))
            self._tell(target)
        return (full + 1) * self._size

    def settle(self, slot: int, tokens: Sequence[int], length: int) -> None:
        chain = self._roots[slot]
        for number in range(length // self._size):
            chain = self._id(chain, tuple(tokens[number * self._size : (number + 1) * self._size]))
            block = self._tables[slot][number]
            if chain not in self._found and block not in self._chains:
                self._found[chain], self._chains[block] = block, chain

    def release(self, slot: int) -> None:
        for block in reversed(self._tables.pop(slot)):
            self._refs[block] -= 1
            if not self._refs[block]:
                self._free[block] = None
                if block not in self._chains:
                    self._free.move_to_end(block, last=False)
        del self._roots[slot]
        heapq.heappush(self._free_slots, slot)

    def gaps(self, decoding: Iterable[int]) -> bool:
        return False

    def arrange(self, decoding: Mapping[int, int]) -> dict[int, int]:
        return {}

    def orders(self) -> tuple[Order, ...]:
        orders, self._orders = tuple(self._orders), []
        return orders

    def usage(self) -> KvUsage:
        return KvUsage(blocks=self._count, used=self._count - len(self._free), block_tokens=self._size)

    def check(self, holders: Sequence[int]) -> None:
        assert sorted(holders) == sorted(self._tables), f"slots {sorted(self._tables)} are held, not {sorted(holders)}"
        assert sorted([*self._tables, *self._free_slots]) == list(range(self._slots))
        counted = [0] * self._count
        for table in self._tables.values():
            assert len(set(table)) == len(table), "a sequence has a block twice"
            for block in table:
                counted[block] += 1
        assert counted == self._refs, "a block's holders were not counted"
        assert set(self._free) == {block for block, refs in enumerate(self._refs) if not refs}, "a block has leaked"
        assert {block: chain for chain, block in self._found.items()} == self._chains

    def _match(self, prompt: Sequence[int], chain: int) -> list[int]:
        """The blocks that hold the beginning of `prompt`, without its last token: that must be run."""
        blocks = list[int]()
        for start in range(0, len(prompt) - self._size, self._size):
            key = chain, tuple(prompt[start : start + self._size])
            if (chain := self._ids.get(key, -1)) not in self._found:
                break
            blocks.append(self._found[chain])
        return blocks

    def _id(self, chain: int, tokens: object) -> int:
        return self._ids.setdefault((chain, tokens), len(self._ids) + 1)

    def _needed(self, length: int) -> int:
        return -(-length // self._size)

    def _hold(self, block: int) -> None:
        self._refs[block] += 1
        self._free.pop(block, None)

    def _take(self) -> int:
        block, _ = self._free.popitem(last=False)
        if (chain := self._chains.pop(block, None)) is not None:
            del self._found[chain]
        self._refs[block] = 1
        return block

    def _tell(self, slot: int) -> None:
        self._orders.append(Table(slot, tuple(self._tables[slot])))


class PagedFlight:
    """What a launch gives when it is collected, and not before."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.collected = False

    def collect(self) -> Rows:
        assert not self.collected, "a flight is collected twice"
        self.collected = True
        return self._rows


class PagedRunner:
    """See `Runner`: works beside the host where `depth` is 1, and chooses the tokens of plain greedy rows."""

    mtp = None
    chooses = frozenset({"greedy"})

    def __init__(
        self, vocab_size: int, blocks: int, block_tokens: int, stop_token_ids: Sequence[int] = (), *, depth: int = 1
    ) -> None:
        self.vocab_size, self.depth = vocab_size, depth
        self._memory = np.full((blocks, block_tokens), NOTHING, np.int64)
        self._tables: dict[int, tuple[int, ...]] = {}
        self._latest: dict[int, int] = {}  # slot -> the token that the latest launch chose for it
        self._stops = tuple(stop_token_ids)
        self._flights: list[PagedFlight] = []
        self.computed = 0  # tokens in all

    def warm_up(self) -> None: ...

    def close(self) -> None:
        assert all(flight.collected for flight in self._flights), "closed with a step in flight"

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = (), columns: object | None = None) -> Flight:
        self._flights = [flight for flight in self._flights if not flight.collected]
        assert len(self._flights) <= self.depth, f"{len(self._flights)} launches are in flight already"
        for order in orders:
            assert not isinstance(order, Copy), "blocks are not copied by slot"
            if isinstance(order, CopyBlock):
                self._memory[order.target] = self._memory[order.source]
            else:
                self._tables[order.slot] = order.blocks
        before, self._latest = self._latest, {}
        logits, tokens, best = [], [], []
        for item in work:
            row = self._run(item, before)
            choice = int(row.argmax())
            self._latest[item.slot] = choice
            tokens.append(choice)
            best.append(row[choice])
            logits.append(row if item.wants is Want.LOGITS else np.full_like(row, np.nan))
        chosen = Best(np.array(tokens, np.int64), np.array(best, np.float32))
        self._flights.append(PagedFlight(Rows(np.stack(logits), chosen)))
        return self._flights[-1]

    def run_rows(self, work: Sequence[Work]) -> Rows:
        return self.launch(work).collect()

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        return self.run_rows(work).logits

    def _run(self, item: Work, before: Mapping[int, int]) -> NDArray[np.float32]:
        tokens = (*item.tokens[:-1], before[item.slot]) if item.fed else item.tokens
        table, size = self._tables[item.slot], self._memory.shape[1]
        for position, token in enumerate(tokens, item.start):
            assert 0 <= token < self.vocab_size, f"token {token} is not in the vocabulary"
            self._memory[table[position // size], position % size] = token
        self.computed += len(tokens)
        held = self._memory[list(table)].reshape(-1)[: item.start + len(tokens)]
        assert NOTHING not in held, f"slot {item.slot} is read where nothing was written"
        return logits_of(held.tolist(), self.vocab_size, self._stops)


def logits_of(tokens: Sequence[int], vocab_size: int, stops: Sequence[int] = ()) -> NDArray[np.float32]:
    """Logits [vocab_size] after `tokens`; now and then one of `stops` is the best."""
    seed = zlib.crc32(repr(list(tokens)).encode())
    logits = np.random.default_rng(seed).standard_normal(vocab_size, np.float32)
    if stops and seed % 24 == 0:
        logits[stops[seed // 24 % len(stops)]] = logits.max() + 1
    return logits
