"""How many places the server behind has, where it is on this machine: its generate step says so in memory that is shared.

The environment names where; for each model there is a file whose first 16 bytes say it, as `triune_runtime.serving.room` writes
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

VARIABLE = b"TRIUNE_ROOM"  # what the names of the files begin with, as a path
_SAID = struct.Struct("<qd")  # places that are free; when that was said, by `time.monotonic`
_OLD_S = 3.0
_LOOK_S = 1.0  # between looks for files that are not there, or have become old
_STEP = "generate"  # what says it; NAME__generate where several models are served
_OTHER_STEPS = ("tokenize", "tokenize_2d", "detokenize")  # these take no place


class Room:
    """Of all models."""

    def __init__(self, beginning: bytes = b"", clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            beginning: of the files' paths; empty: nothing is ever known.
        """
        self._beginning, self._clock = beginning, clock
        self._said: dict[str, mmap.mmap] = {}  # by the step that says it
        self._looked = -_LOOK_S

    @classmethod
    def of_environment(cls, environment: Mapping[bytes, bytes] = os.environb) -> Room:
        return cls(environment.get(VARIABLE, b""))

    def free(self, model: str) -> int | None:
        """Places that there are for a request to a model; None: nobody knows, or it needs none.

        Args:
            model: any name: a client may have made it up.
        """
        name, _, step = model.rpartition("__")
        if not self._beginning or step in _OTHER_STEPS:
            return None
        now = self._clock()
        if (free := self._free(name, model, now)) is None and now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
            free = self._free(name, model, now)
        return free

    def _free(self, name: str, model: str, now: float) -> int | None:
        own = (f"{name}__{_STEP}", f"{model.removesuffix('_infer')}__{_STEP}", _STEP)
        if (memory := next((self._said[one] for one in own if one in self._said), None)) is None:
            return None
        free, said = _SAID.unpack_from(memory)
        return int(free) if now - said < _OLD_S else None

    def _look(self) -> None:
        self._said = {}
        for path in glob.glob(b"%b-*" % glob.escape(self._beginning)):  # noqa: PTH207  # bytes
            with contextlib.suppress(OSError, ValueError):
                self._said[os.fsdecode(path[len(self._beginning) + 1 :])] = _mapped(path)


def _mapped(path: bytes) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, _SAID.size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
