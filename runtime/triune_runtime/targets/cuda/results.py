"""What comes back from steps in flight: the chosen tokens in one small copy, logits only of the rows that they are asked of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runner import Best, Rows, Want
from ...sampling.columns import Indices
from ..device.device import SharedDevice
from .parts import Batch, Piece
from .protocols import Chooser
from .staging import Landing, Move, Outlet

_LOGITS_BYTES = 64 << 20  # of pinned memory for logits that are on their way, for each of two blocks


class Landed:
    """See `Flight`: of a launch whose parts land one by one."""

    def __init__(self, rows: Rows, landings: Sequence[Landing]) -> None:
        self._rows, self._landings = rows, landings

    def collect(self) -> Rows:
        """See `Flight.collect`."""
        for landing in self._landings:
            landing.land()
        return self._rows


class Results:
    """The way back from the device, for all parts of all launches."""

    def __init__(self, device: SharedDevice, *, rows: int, vocab_size: int, chooses: bool) -> None:
        """
        Args:
            rows: of a part, at most.
            chooses: whether tokens are chosen on the device.
        """
        self._device, self._vocab_size, self._chooses = device, vocab_size, chooses
        self._at_once = min(rows, max(1, _LOGITS_BYTES // (4 * vocab_size)))  # rows of logits in one block
        self._logits = Outlet(device, {"logits": (np.float32, (self._at_once, vocab_size))}, blocks=2)
        if chooses:
            self._chosen = Outlet(device, {"tokens": (np.int64, (rows,)), "logits": (np.float32, (rows,))})

    def empty(self, rows: int, *, logits: bool) -> Rows:
        """Room for what a launch makes.

        Args:
            logits: whether anybody asks for some; else there is no memory behind them, if tokens are chosen.
        """
        best = Best(np.zeros(rows, np.int64), np.zeros(rows, np.float32)) if self._chooses else None
        if self._chooses and not logits:
            return Rows(np.broadcast_to(np.float32(np.nan), (rows, self._vocab_size)), best)
        return Rows(np.empty((rows, self._vocab_size), np.float32), best)

    def fetch_batch(self, made: Rows, batch: Batch, chooser: Chooser | None, logits: int) -> list[Landing]:
        """Queue the copies of what decodes made: see `fetch`. What was chosen comes back of all."""
        landings = []
        if made.best is not None and chooser is not None:
            landings.append(self._fetch_chosen(made.best, batch.rows, np.arange(len(batch)), chooser))
        wanted = np.flatnonzero(batch.logits) if made.best is not None else np.arange(len(batch))
        return landings + self._fetch_rows(made, wanted, batch.rows[wanted], logits)

    def fetch(
        self, made: Rows, pieces: Sequence[Piece], rows: Sequence[int], chooser: Chooser | None, logits: int
    ) -> list[Landing]:
        """Queue the copies of what a packed part made.

        Args:
            made: where it belongs.
            rows: of each piece the first of its rows in the part.
            logits: address of the part's logits.
        """
        landings, pairs = list[Landing](), list(zip(pieces, rows, strict=True))
        places = np.array([piece.first + number for piece in pieces for number in range(piece.rows)], np.int64)
        own = np.array([row + number for piece, row in pairs for number in range(piece.rows)], np.int64)
        if made.best is not None and chooser is not None and len(own):
            landings.append(self._fetch_chosen(made.best, places, own, chooser))
        if made.best is not None:
            wanted = np.array([piece.wants is Want.LOGITS for piece in pieces for _ in range(piece.rows)], np.bool_)
            places, own = places[wanted], own[wanted]
        return landings + self._fetch_rows(made, own, places, logits)

    def _fetch_chosen(self, best: Best, places: Indices, own: Indices, chooser: Chooser) -> Landing:
        block, most = self._chosen.take(), int(own[-1]) + 1
        tokens, logits = block["tokens"][:most], block["logits"][:most]
        self._device.download(tokens, chooser.tokens)
        self._device.download(logits, chooser.logits)
        to, of = _span(places), _span(own)
        return self._chosen.close((Move(best.tokens, to, tokens, of), Move(best.logits, to, logits, of)))

    def _fetch_rows(self, made: Rows, own: Indices, places: Indices, logits: int) -> list[Landing]:
        """Queue the copies of rows of logits: `own` of the part to `places` of the launch."""
        wanted = list(zip(own.tolist(), places.tolist(), strict=True))
        return [
            self._fetch_logits(made, wanted[first : first + self._at_once], logits)
            for first in range(0, len(wanted), self._at_once)
        ]

    def _fetch_logits(self, made: Rows, wanted: Sequence[tuple[int, int]], logits: int) -> Landing:
        """Rows (of the part, of the launch); what follows each other in both goes in one copy."""
        block, moves, begin = self._logits.take()["logits"], list[Move](), 0
        while begin < len(wanted):
            row, place = wanted[begin]
            stop = begin + 1
            while stop < len(wanted) and wanted[stop] == (row + stop - begin, place + stop - begin):
                stop += 1
            self._device.download(block[begin:stop], logits + 4 * self._vocab_size * row)
            moves.append(Move(made.logits, slice(place, place + stop - begin), block[begin:stop]))
            begin = stop
        return self._logits.close(moves)


def _span(places: Indices) -> slice | Indices:
    """A slice, if they follow each other."""
    first = int(places[0])
    return slice(first, first + len(places)) if bool((np.diff(places) == 1).all()) else places
