"""What comes back from steps in flight: the chosen tokens in one small copy, logits only of the rows that they are asked of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...runner import Best, Rows, Want, Work
from ..device.device import SharedDevice
from .parts import Part
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

    def empty(self, work: Sequence[Work]) -> Rows:
        """Room for what a launch makes; logits without memory behind them if nobody asks for any."""
        count = sum(item.rows for item in work)
        best = Best(np.zeros(count, np.int64), np.zeros(count, np.float32)) if self._chooses else None
        if self._chooses and not any(item.wants is Want.LOGITS or item.scored for item in work):
            return Rows(np.broadcast_to(np.float32(np.nan), (count, self._vocab_size)), best)
        return Rows(np.empty((count, self._vocab_size), np.float32), best)

    def fetch(self, made: Rows, part: Part, rows: Sequence[int], chooser: Chooser | None, logits: int) -> list[Landing]:
        """Queue the copies of what `part` made.

        Args:
            made: where it belongs.
            rows: of each piece the first of its rows in the part.
            logits: address of the part's logits.
        """
        landings = []
        if made.best is not None and chooser is not None:
            landings.append(self._fetch_chosen(made.best, part, rows, chooser))
        wanted = [
            (row + number, piece.first + number)
            for piece, row in zip(part.pieces, rows, strict=True)
            if piece.wants is Want.LOGITS or (made.best is None and piece.rows)
            for number in range(piece.rows)
        ]
        for first in range(0, len(wanted), self._at_once):
            landings.append(self._fetch_logits(made, wanted[first : first + self._at_once], logits))
        return landings

    def _fetch_chosen(self, best: Best, part: Part, rows: Sequence[int], chooser: Chooser) -> Landing:
        block = self._chosen.take()
        pairs = list(zip(part.pieces, rows, strict=True))
        places = [piece.first + number for piece, _ in pairs for number in range(piece.rows)]
        if not places:
            return self._chosen.close(())
        own = [row + number for piece, row in pairs for number in range(piece.rows)]
        tokens, logits = block["tokens"][: own[-1] + 1], block["logits"][: own[-1] + 1]
        self._device.download(tokens, chooser.tokens)
        self._device.download(logits, chooser.logits)
        to, of = _span(places), _span(own)
        return self._chosen.close((Move(best.tokens, to, tokens, of), Move(best.logits, to, logits, of)))

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


def _span(places: list[int]) -> slice | list[int]:
    """A slice, if they follow each other."""
    whole = range(places[0], places[0] + len(places))
    return slice(whole.start, whole.stop) if places == list(whole) else places
