"""A runner without a model whose KV memory lies in blocks.

It keeps the tokens that were written into each block, and its logits are a hash of what a sequence's blocks hold when it reads
them: so a block that is shared wrongly, given away too early or not copied shows at once, as other tokens.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triune_runtime.runner import Best, Copy, CopyBlock, Flight, Order, Rows, Want, Work
from triune_runtime.sampling.columns import Columns
from triune_runtime.sampling.host import choose

NOTHING = -1  # what a block holds where nothing was written


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
    """See `Runner`: works beside the host where `depth` is 1, and chooses tokens as the columns say."""

    mtp = None

    def __init__(
        self,
        vocab_size: int,
        blocks: int,
        block_tokens: int,
        stop_token_ids: Sequence[int] = (),
        *,
        depth: int = 1,
        chooses: frozenset[str] = frozenset({"greedy"}),
    ) -> None:
        self.vocab_size, self.depth, self.chooses = vocab_size, depth, chooses
        self._memory = np.full((blocks, block_tokens), NOTHING, np.int64)
        self._tables: dict[int, tuple[int, ...]] = {}
        self._latest: dict[int, int] = {}  # slot -> the token that the latest launch chose for it
        self._stops = tuple(stop_token_ids)
        self._flights: list[PagedFlight] = []
        self.computed = 0  # tokens in all

    def warm_up(self) -> None: ...

    def close(self) -> None:
        assert all(flight.collected for flight in self._flights), "closed with a step in flight"

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = (), columns: Columns | None = None) -> Flight:
        self._flights = [flight for flight in self._flights if not flight.collected]
        assert len(self._flights) <= self.depth, f"{len(self._flights)} launches are in flight already"
        for order in orders:
            assert not isinstance(order, Copy), "blocks are not copied by slot"
            if isinstance(order, CopyBlock):
                self._memory[order.target] = self._memory[order.source]
            else:
                self._tables[order.slot] = order.blocks
        before = self._latest
        logits = np.stack([self._run(item, before) for item in work])
        tokens, wanted = logits.argmax(1), np.array([item.wants for item in work])
        if columns is not None:
            tokens = np.where(wanted == Want.TOKEN, choose(logits, columns).tokens, tokens)
        self._latest = dict(zip((item.slot for item in work), tokens.tolist(), strict=True))
        chosen = Best(tokens, logits[np.arange(len(work)), tokens])
        logits[wanted != Want.LOGITS] = np.nan
        self._flights.append(PagedFlight(Rows(logits, chosen)))
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
