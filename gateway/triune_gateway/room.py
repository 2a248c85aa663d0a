"""How many places the server behind has, where it is on this machine: its generate step says so in memory that is shared.

The environment names where; for each model there is a file whose first 24 bytes say it, as `triune_runtime.serving.room` writes
them. Where nothing is said, or not for some seconds, nobody knows.
"""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

VARIABLE = b"TRIUNE_ROOM"  # what the names of the files begin with, as a path
_SAID = struct.Struct("<qdq")  # places that are free; when that was said, by `time.monotonic`; requests that have come
_OLD_S = 3.0
_LOOK_S = 1.0  # between looks for files that are not there, or have become old
_STEP = "generate"  # what says it; NAME__generate where several models are served
_OTHER_STEPS = ("tokenize", "tokenize_2d", "detokenize")  # these take no place


class Said(NamedTuple):
    """Of one model.

    Attributes:
        free: places that there are; fewer than none where it has taken more than it should.
        came: requests that have come at all, each of as many as it has answers.
    """

    free: int
    came: int


class Room:
    """Of all models."""

    def __init__(self, beginning: bytes = b"", clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            beginning: of the files' paths; empty: nothing is ever known.
        """
        self._beginning, self._clock = beginning, clock
        self._memory: dict[str, mmap.mmap] = {}  # by the step that says it
        self._looked = -_LOOK_S

    @classmethod
    def of_environment(cls, environment: Mapping[bytes, bytes] = os.environb) -> Room:
        return cls(environment.get(VARIABLE, b""))

    def said(self, model: str) -> Said | None:
        """What the server says to a request to a model; None: nothing, or the request needs no place.

        Args:
            model: any name: a client may have made it up.
        """
        name, _, step = model.rpartition("__")
        if not self._beginning or step in _OTHER_STEPS:
            return None
        now = self._clock()
        if (said := self._read(name, model, now)) is None and now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
            said = self._read(name, model, now)
        return said

    def _read(self, name: str, model: str, now: float) -> Said | None:
        own = (f"{name}__{_STEP}", f"{model.removesuffix('_infer')}__{_STEP}", _STEP)
        if (memory := next((self._memory[one] for one in own if one in self._memory), None)) is None:
            return None
        free, at, came = _SAID.unpack_from(memory)
        return Said(free, came) if now - at < _OLD_S else None

    def _look(self) -> None:
        self._memory = {}
        for path in glob.glob(b"%b-*" % glob.escape(self._beginning)):  # noqa: PTH207  # bytes
            with contextlib.suppress(OSError, ValueError):
                self._memory[os.fsdecode(path[len(self._beginning) + 1 :])] = _mapped(path)


def _mapped(path: bytes) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, _SAID.size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
