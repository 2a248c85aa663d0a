"""What steps are queued with, and steps of any shape: prompts' chunks, drafts, and decodes that run along with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...sampling.columns import Columns
from ..device.device import Event, SharedDevice
from .parts import Piece, Sizes
from .protocols import Chooser, Feed, Feeder, StepBuffers, StepProgram, StepShape
from .staging import Staging
from .tables import Tables


@dataclass(frozen=True, kw_only=True)
class StepTools:
    """What all steps share. Steps run in order, so that one place for logits serves them all."""

    device: SharedDevice
    program: StepProgram
    feeder: Feeder
    chooser: Chooser | None  # None: tokens are chosen on the host
    tables: Tables
    sizes: Sizes
    block_tokens: int
    latest: int  # address: int64 [slots + 1], the token last chosen for each slot; the last one is of no sequence
    logits: int  # address: float32 [sizes.rows, vocab_size]
    turns: Iterator[Event]  # two in turn: how far choosers' uploads have come

    def prepare(self, columns: Columns | None, rows: int) -> None:
        """Queue the upload of how tokens are chosen of the next step.

        Args:
            columns: of its first rows; None, and for others: the best token.
        """
        if self.chooser is not None:
            turn = next(self.turns)
            turn.wait()
            self.chooser.prepare(columns, rows)
            turn.record()

    def choose(self, rows: int, slots: int, last_rows: int, sequences: int) -> None:
        """Queue the choice of tokens of `rows` rows, and keep those of the sequences' slots.

        Args:
            slots: address of the slots, int32 [sequences].
            last_rows: address of the row of each, int32 [sequences]; negative: none.
        """
        if self.chooser is not None:
            self.chooser.enqueue(self.logits, rows)
            self.feeder.remember(self.latest, slots, last_rows, self.chooser.tokens, sequences)


class Packed:
    """Steps whose sequences' tokens lie one after the other."""

    def __init__(self, tools: StepTools) -> None:
        self._tools = tools
        sizes, tables = tools.sizes, tools.tables
        self._staging = Staging(
            tools.device,
            {
                "input_ids": (np.int64, sizes.tokens),
                "ends": (np.int32, sizes.sequences + 1),
                "past": (np.int32, sizes.sequences),
                "slots": (np.int32, sizes.sequences),
                "fed": (np.int32, sizes.sequences),
                "last_rows": (np.int32, sizes.sequences),
                "logits_at": (np.int64, sizes.rows),
            },
        )
        at = self._staging.addresses
        self._feed = Feed(tables.address, tables.width, tools.latest, at["slots"], at["fed"])
        self._last_rows = at["last_rows"]
        self._buffers = StepBuffers(
            input_ids=at["input_ids"],
            cu_seqlens=at["ends"],
            past_seqlens=at["past"],
            block_table=tools.device.allocate(4 * sizes.sequences * tables.width),
            logits_at=at["logits_at"],
            logits=tools.logits,
        )

    def queue(self, pieces: Sequence[Piece], columns: Columns | None) -> list[int]:
        """Queue a step. Returns of each piece where its rows begin.

        Args:
            columns: of the pieces that have rows.
        """
        tools, block, count = self._tools, self._staging.take(), len(pieces)
        lengths = [len(piece.tokens) for piece in pieces]
        ends = block["ends"]
        ends[0] = 0
        np.cumsum(lengths, out=ends[1 : count + 1])
        tokens = int(ends[count])
        block["input_ids"][:tokens] = [token for piece in pieces for token in piece.tokens]
        block["past"][:count] = [piece.start for piece in pieces]
        block["slots"][:count] = [piece.slot for piece in pieces]
        block["fed"][:count] = [piece.fed for piece in pieces]
        firsts, rows = list[int](), 0
        for number, piece in enumerate(pieces):
            firsts.append(rows)
            end = int(ends[number + 1])
            block["logits_at"][rows : rows + piece.rows] = np.arange(end - piece.rows, end)
            rows += piece.rows
            block["last_rows"][number] = rows - 1 if piece.rows else -1
        if not rows:  # a graph makes one row at least; nobody reads it
            block["logits_at"][0], rows = tokens - 1, 1
        self._staging.send()
        longest = max(piece.start + length for piece, length in zip(pieces, lengths, strict=True))
        bounds = np.array([max(lengths), longest, longest], np.int32)
        shape = StepShape(tokens=tokens, sequences=count, rows=rows, width=tools.tables.width)
        tools.prepare(columns, rows)
        tools.feeder.assemble(self._feed, self._buffers, shape)
        tools.program.enqueue(self._buffers, shape, bounds)
        tools.choose(rows, self._feed.slots, self._last_rows, count)
        return firsts
