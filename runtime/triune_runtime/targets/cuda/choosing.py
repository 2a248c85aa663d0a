"""Chooses tokens on the GPU as the host would: what each row wants goes there, tokens come back, logits stay.

The choice is that of `sampling.host.choose`, to the bit: see kernels/choosing.cu. Log probabilities are the host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...sampling.columns import Columns, Sites
from ...sampling.weights import COARSE
from ..device.device import Device
from .nvrtc import EXACT, Kernel, Module
from .protocols import Launchable, StreamDevice

CHOOSES = frozenset({
    "greedy", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "logit_bias", "bad_words", "min_tokens", "thinking_budget", "guide",
})  # fmt: skip
KERNELS = Path(__file__).with_name("kernels")
SOURCES = ("block.cuh", "drawing.cuh", "choosing.cu")  # one behind the other
# As the structures of the kernel's source have it.
ROW = np.dtype([
    ("top_p", "f8"), ("min_p", "f8"), ("seed", "u8"), ("position", "u8"), ("forced", "i8"),
    ("temperature", "f4"), ("repetition", "f4"), ("presence", "f4"), ("frequency", "f4"),
    ("top_k", "i4"), ("draws", "i4"), ("mask", "i4"), ("pad", "i4"),
    ("biases", "i4"), ("biases_end", "i4"), ("seen", "i4"), ("seen_end", "i4"), ("bans", "i4"), ("bans_end", "i4"),
])  # fmt: skip
SITE = np.dtype([("token", "i4"), ("value", "f4")])
HEAD = np.dtype([("sites", "u8"), ("saved", "u8"), ("masks", "u8"), ("pad", "u8")])
_ALIKE = ("top_p", "min_p", "seed", "position", "temperature", "repetition", "presence", "frequency", "top_k")
_KINDS = ("biases", "seen", "bans")
_TURNS = 2  # host copies of what is uploaded: the one before last is on the GPU by the time it is written again
_FEW, _MANY = 512, 1024  # threads of a block: with few, two blocks can run beside each other
_SITES = 1 << 18  # single tokens that a step's rows may name before more memory is taken
_SPREAD = 128  # rows up to which each has a part of the GPU for itself


def compile_kernel() -> Kernel:
    """The kernel, for the GPU that is there.

    Raises:
        NvrtcError: it cannot be compiled or loaded.
    """
    return Module.compile(source(), "choosing.cu", EXACT).kernel("choose")


def source() -> str:
    """The kernel's source."""
    return "\n".join(f'#line 1 "{name}"\n{(KERNELS / name).read_text("utf-8")}' for name in SOURCES)


class Chooser:
    """Chooses a token in each row of logits. All its addresses stay as they are, so that what is queued can be recorded."""

    chooses = CHOOSES

    def __init__(self, device: StreamDevice, kernel: Launchable, *, vocab_size: int, rows: int) -> None:
        """
        Args:
            kernel: of `compile_kernel`.
            rows: the most rows of a step.
        """
        self._device, self._kernel, self._vocab_size = device, kernel, vocab_size
        self._words = (vocab_size + 31) // 32
        self._turn = 0
        self._shaped = 0  # rows on the device that may be other than plain
        self._tables = [device.host((HEAD.itemsize + rows * ROW.itemsize,), np.uint8) for _ in range(_TURNS)]
        self._table = device.allocate(self._tables[0].nbytes)
        self._sites = _Growing(device, SITE, _SITES)
        self._masks = _Growing(device, np.dtype("u4"), rows * self._words)
        self._room = self._sites.room  # for how many sites' logits the kernel has room in `saved`, to keep them meanwhile
        self._saved = device.allocate(4 * self._room)
        coarse = device.host(COARSE.shape, np.uint32)
        coarse[...] = COARSE
        self._coarse = device.allocate(coarse.nbytes)
        device.upload(self._coarse, coarse)
        self.tokens = device.allocate(8 * rows)  # int64 [rows]
        self.logits = device.allocate(4 * rows)  # float32 [rows], of these tokens; NaN: the row has none to choose
        self._most = rows

    def prepare(self, columns: Columns | None, rows: int) -> None:
        """Queue the upload of how the next step's tokens are chosen. The step before the last must be over.

        Args:
            columns: of the first rows; None: the best tokens are chosen.
            rows: of the step; of those that have no columns, the best tokens are chosen.
        """
        assert rows <= self._most, f"{rows} rows, this is made for {self._most}"
        self._turn = (self._turn + 1) % _TURNS
        if columns is None or bool((columns.greedy & ~columns.adjusted & (columns.forced < 0)).all()):
            if self._shaped:
                self._upload(np.zeros(self._shaped, ROW))
                self._shaped = 0
            return
        count = len(columns)
        assert count <= rows, f"columns of {count} rows for a step of {rows}"
        table = np.zeros(max(rows, self._shaped), ROW)
        for name in _ALIKE:
            table[name][:count] = getattr(columns, name)
        table["draws"][:count] = ~columns.greedy
        table["forced"][:count] = columns.forced + 1
        if len(columns.masked):
            table["mask"][columns.masked] = np.arange(1, len(columns.masked) + 1)
            self._masks.put([columns.masks.reshape(-1)], self._turn)
        self._put_sites(columns, table[:count])
        self._upload(table)
        self._shaped = count

    def enqueue(self, logits: int, rows: int) -> None:
        """Queue the choice for `rows` rows of logits: float32 [rows, vocab_size], which are the same afterwards."""
        threads = _MANY if rows <= _SPREAD else _FEW
        addresses = (self._table, self._table + HEAD.itemsize, self._coarse, self.tokens, self.logits)
        self._kernel.launch(
            self._device.stream, (rows, 1, 1), (threads, 1, 1),
            (np.uint64(logits), np.int32(self._vocab_size), np.int32(self._words), *map(np.uint64, addresses)),
        )  # fmt: skip

    def _put_sites(self, columns: Columns, table: NDArray[Any]) -> None:
        """Queue the upload of the single tokens that `columns` name, and say in each row where its own are."""
        parts, first = list[NDArray[Any]](), 0
        for name in _KINDS:
            sites: Sites = getattr(columns, name)
            if not len(sites):
                continue
            bounds = first + sites.bounds(len(table))
            table[name], table[f"{name}_end"] = bounds[:-1], bounds[1:]
            part = np.empty(len(sites), SITE)
            part["token"], part["value"] = sites.tokens, sites.values
            parts.append(part)
            first += len(sites)
        if parts:
            self._sites.put(parts, self._turn)
            if first > self._room:
                self._room = self._sites.room
                self._saved = self._device.allocate(4 * self._room)

    def _upload(self, table: NDArray[Any]) -> None:
        pinned = self._tables[self._turn]
        head = pinned[: HEAD.itemsize].view(HEAD)
        head["sites"], head["saved"], head["masks"] = self._sites.address, self._saved, self._masks.address
        used = pinned[: HEAD.itemsize + table.nbytes]
        used[HEAD.itemsize :].view(ROW)[...] = table
        self._device.upload(self._table, used)


class _Growing:
    """An array on the device, and its sources on the host, that grow when more has to go in: then the address is another."""

    def __init__(self, device: Device, dtype: np.dtype[Any], room: int) -> None:
        self._device, self._dtype = device, dtype
        self._take(room)

    def put(self, parts: Sequence[NDArray[Any]], turn: int) -> None:
        """Queue the upload of `parts`, one behind the other."""
        count = sum(map(len, parts))
        if count > self.room:
            room = self.room
            while count > room:
                room *= 2
            self._take(room)
        used = self._pinned[turn][: count * self._dtype.itemsize]
        np.concatenate(parts, out=used.view(self._dtype))
        self._device.upload(self.address, used)

    def _take(self, room: int) -> None:
        self.room, size = room, room * self._dtype.itemsize
        self.address = self._device.allocate(size)
        self._pinned: list[NDArray[Any]] = [self._device.host((size,), np.uint8) for _ in range(_TURNS)]
