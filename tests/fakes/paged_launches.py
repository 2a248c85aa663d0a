"""Random launches for a paged runner, and by hand what comes of them: prompts, chunks, decodes, fed tokens, drafts, copies."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.cuda_engines import cuda_manifest
from fakes.paged import logits_of
from triune_runtime.manifest import Limits
from triune_runtime.runner import CopyBlock, Order, Table, Want, Work
from triune_runtime.targets.cuda.runner import PagedRunner

VOCAB, BLOCK, LENGTH, SLOTS = 40, 4, 48, 6
LIMITS = Limits(max_sequences=SLOTS, max_length=LENGTH, prefill_chunk=8, max_step_tokens=16)
MANIFEST = cuda_manifest(VOCAB, LIMITS, BLOCK)


class ByHand:
    """Sequences as lists of tokens, and random launches of them."""

    def __init__(self, seed: int, runner: PagedRunner, *, feeds: bool = True) -> None:
        self.rng, self.runner = random.Random(seed), runner
        self._kinds = ["prompt", "decode", "decode", *(["fed"] if feeds else []), "drafts", "scored"]
        self.texts: dict[int, list[int]] = {}  # slot -> what it holds
        self.chosen: dict[int, int] = {}  # slot -> what the launch before chose, if it is not known to the host
        self.tables: dict[int, list[int]] = {}
        self.free = list(range(runner.blocks))
        self.rng.shuffle(self.free)

    def launch(self) -> tuple[Any, list[Work], list[NDArray[np.float32]]]:
        """Launch something: the flight, the work, and the logits that each of its rows must have."""
        rng, work, expected, orders = self.rng, list[Work](), list[Any](), list[Order]()
        before, self.chosen = self.chosen, {}
        budget = LIMITS.step_tokens
        for slot in rng.sample(range(SLOTS), rng.randint(1, SLOTS)):
            text, fed = self.texts.get(slot, []), False
            if (text and rng.random() < 0.15) or len(text) > LENGTH - 8:
                orders += self._drop(slot)
                text = []
            kind = rng.choice(self._kinds)
            if kind == "fed" and slot in before and text:
                new, fed = [before[slot]], True
            elif kind == "decode" and text:
                new = [rng.randrange(VOCAB)]
            else:
                new = [rng.randrange(VOCAB) for _ in range(rng.randint(1, min(8, max(budget, 1))))]
                budget -= len(new)
            drafts = rng.randint(0, len(new) - 1) if kind == "drafts" and not fed else 0
            scored = kind == "scored" and not fed
            wants = rng.choice(list(Want)) if not (drafts or scored) else rng.choice([Want.TOKEN, Want.LOGITS])
            start, held = len(text), [*text, *new]
            orders += self._extend(slot, len(held))
            given = (*new[:-1], 0) if fed else tuple(new)
            work.append(Work(slot, start, given, drafts, wants, fed, scored))
            rows = work[-1].rows
            expected += [logits_of(held[: len(held) - rows + 1 + row], VOCAB) for row in range(rows)]
            keep = len(held) - rng.randint(0, drafts)
            self.texts[slot] = held[:keep]
            if wants is Want.TOKEN and not drafts and not scored:
                self.chosen[slot] = int(expected[-1].argmax())
        return self.runner.launch(work, orders), work, expected

    def _drop(self, slot: int) -> list[Order]:
        """Give the slot's blocks back; what lies there is another's from now on."""
        self.free += self.tables.pop(slot)
        del self.texts[slot]
        return []

    def _extend(self, slot: int, length: int) -> list[Order]:
        table, orders = self.tables.setdefault(slot, []), list[Order]()
        if table and self.rng.random() < 0.2:  # as if it were shared: goes on in a copy
            place, new = self.rng.randrange(len(table)), self.free.pop(0)
            orders.append(CopyBlock(table[place], new))
            self.free.append(table[place])
            table[place] = new
        while len(table) * BLOCK < length:
            table.append(self.free.pop(0))
        return [*orders, Table(slot, tuple(table))]


def check(flight: Any, work: list[Work], expected: list[Any], *, chooses: bool) -> None:
    made, row = flight.collect(), 0
    for item in work:
        span = range(row, row + item.rows)
        row += item.rows
        for at in span:
            if item.wants is Want.LOGITS or item.scored or (not chooses and item.wants is Want.TOKEN):
                assert np.array_equal(made.logits[at], expected[at]), item
            if chooses and (item.wants is not Want.NOTHING or item.scored):
                assert made.best.tokens[at] == expected[at].argmax() and made.best.logits[at] == expected[at].max(), item
