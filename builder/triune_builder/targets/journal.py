"""Which weights an interrupted build has already written: read when the build is taken up again. Knows no graph."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ..quantize.change import Change

_SYNCED = 1 << 28  # bytes of weights between two entries: what an interruption can cost


class Journal:
    """Places of weights in a data file, one line for every few hundred megabytes; a line is true once it is there.

    An entry follows the bytes onto the disk, so that it holds even if the machine stops. It also keeps what was measured of
    the weights: they are not made again.
    """

    def __init__(self, path: Path, changes: Sequence[Change] = ()) -> None:
        self._path, self._changes = path, changes
        self._noted = 0  # bytes that the entries cover
        self._waiting: dict[str, tuple[int, int]] = {}
        self.places: dict[str, tuple[int, int]] = {}  # of weights written earlier: offset and length
        self._measured: set[int] = set()
        for line in self._lines():
            entry = json.loads(line)
            self.places |= {name: (offset, length) for name, (offset, length) in entry["places"].items()}
            for number, error, note in entry["changes"]:
                changes[number].error, changes[number].note = error, note
                self._measured.add(number)
            self._noted = entry["end"]

    @property
    def end(self) -> int:
        """Bytes of the data file that are surely there."""
        return self._noted

    def add(self, name: str, offset: int, length: int, data: BinaryIO) -> None:
        """Note that a weight was written at the end of `data`."""
        self._waiting[name] = offset, length
        if offset + length - self._noted < _SYNCED:
            return
        data.flush()
        os.fdatasync(data.fileno())
        known = {i for i, change in enumerate(self._changes) if not math.isnan(change.error)} - self._measured
        entry = {
            "end": offset + length,
            "places": self._waiting,
            "changes": [[i, self._changes[i].error, self._changes[i].note] for i in sorted(known)],
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._measured |= known
        self._noted, self._waiting = offset + length, {}

    def close(self) -> None:
        """All is written: the journal has done its work."""
        self._path.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        if not self._path.exists():
            return []
        text = self._path.read_text("utf-8")
        return text[: text.rfind("\n") + 1].splitlines()  # the last line may have been cut off
