"""How the generate step tells the steps before it that it is full, so that they refuse at once what it would refuse.

It says so in memory that the processes of one server share: a file in a folder of this user alone, found as the socket of
acknowledgements is. Where there is no such folder, nothing is said, and generate refuses by itself, as it also does for whoever
came while this was being said. What it has not said again for some seconds holds no more: its process may have ended.

What stands before the server on the same machine reads it, too: the environment names where a link to the file is made for
it, by the name of the generate step.

Who refuses counts there what he refused, each process in a cell of its own; generate adds it to its own count.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Overloaded
from .acknowledgements import private_files

VARIABLE = b"TRIUNE_ROOM"  # of the environment: what the links' paths begin with
# Places that are free; when that was said, by the clock that all processes of a machine share; requests that have come.
_SAID = struct.Struct("<qdq")
_COUNT = struct.Struct("<q")
_READERS = ("tokenize", "tokenize_2d", "triune_infer", "ensemble_infer")  # each with a cell behind the others
_SIZE = _SAID.size + _COUNT.size * len(_READERS)
_OLD_S = 3.0
_LOOK_S = 1.0  # between looks for a file that is not there
_ENDING = ("cancel", "stop_request", "stop")  # true in a request that ends another, which leaves a place


class RoomWriter:
    """The generate side."""

    def __init__(
        self, limit: int, server_pid: int | None = None, engine: Path | None = None, link: bytes | None = None
    ) -> None:
        """
        Args:
            limit: requests that are served and wait at most.
            link: a path that leads to the file, too, see `link_of`.
        """
        self._limit, self._here, self._came = limit, 0, 0
        self._saying = threading.Lock()
        self._counted = 0
        self._memory: mmap.mmap | None = None
        self._path: Path | None = None
        self._link = link
        for path in private_files("room", server_pid or os.getppid(), engine):
            with contextlib.suppress(OSError):
                _sweep(path.parent)
                self._memory = _mapped(path, os.O_CREAT)  # as it lies there: readers of before may have it
                self._counted, self._path = sum(_counts(self._memory)), path
                break
        if self._link is not None and self._path is not None:
            with contextlib.suppress(OSError):
                _unlink(self._link)
                os.symlink(os.fsencode(self._path), self._link)  # noqa: PTH211  # bytes
        self.say(0)

    def say(self, here: int) -> None:
        """So many requests are served and wait now. Told of every change, it knows how many have come."""
        with self._saying:
            self._came += max(here - self._here, 0)
            self._here = here
            self._write()

    def refused(self) -> int:
        """How many others have refused since this was asked last; what was said is said again."""
        if self._memory is None:
            return 0
        with self._saying:
            self._write()
        before, self._counted = self._counted, sum(_counts(self._memory))
        return self._counted - before

    def _write(self) -> None:
        if self._memory is not None:
            _SAID.pack_into(self._memory, 0, self._limit - self._here, time.monotonic(), self._came)

    def close(self) -> None:
        """Say nothing more."""
        self.say(0)
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        if self._link is not None:
            _unlink(self._link)


class RoomReader:
    """A step before generate."""

    def __init__(self, model: str, server_pid: int | None = None, engine: Path | None = None) -> None:
        """
        Args:
            model: its name, which may begin with that of an engine.
        """
        step = model.rpartition("__")[2]
        place = _READERS.index(step if step in _READERS else "triune_infer")
        self._cell = _SAID.size + _COUNT.size * place
        self._paths = private_files("room", server_pid or os.getppid(), engine)
        self._memory: mmap.mmap | None = None
        self._looked = -_LOOK_S

    def check(self, tensors: Callable[[], Mapping[str, NDArray[Any]]]) -> None:
        """Make sure that generate has a place for a request.

        Args:
            tensors: its inputs; asked only where it has none.

        Raises:
            Overloaded: it has none, and the request does not end another.
        """
        if not self._full() or _ends_another(tensors()):
            return
        assert self._memory is not None, "it says that it is full"
        _COUNT.pack_into(self._memory, self._cell, _COUNT.unpack_from(self._memory, self._cell)[0] + 1)
        raise Overloaded("as many requests as are served and may wait are here already", "send it again later")

    def _full(self) -> bool:
        now = time.monotonic()
        if (free := self._free(now)) is None and now - self._looked >= _LOOK_S:  # it is not there yet, or another one is
            self._looked = now
            for path in self._paths:
                with contextlib.suppress(OSError, ValueError):
                    self._memory = _mapped(path)
                    break
            free = self._free(now)
        return free is not None and free <= 0

    def _free(self, now: float) -> int | None:
        """The places that are free; None: nobody has said so lately."""
        if self._memory is None:
            return None
        free, said, _ = _SAID.unpack_from(self._memory)
        return int(free) if now - said < _OLD_S else None


def _mapped(path: Path, flags: int = 0) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        if flags:
            os.ftruncate(descriptor, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    finally:
        os.close(descriptor)


def _counts(memory: mmap.mmap) -> Collection[int]:
    return [_COUNT.unpack_from(memory, _SAID.size + _COUNT.size * place)[0] for place in range(len(_READERS))]


def _ends_another(tensors: Mapping[str, NDArray[Any]]) -> bool:
    found = (tensors[name] for name in _ENDING if name in tensors)
    return any(array.dtype == np.bool_ and bool(array.any()) for array in found)


def _sweep(folder: Path) -> None:
    """Remove the files of servers that have ended."""
    for path in folder.glob("room-*"):
        pid = path.name.split("-")[1]
        if not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


def link_of(step: str) -> bytes | None:
    """Where the environment wants a link for a generate step; None: nowhere."""
    beginning = os.environb.get(VARIABLE)
    return b"%b-%b" % (beginning, os.fsencode(step)) if beginning else None


def _unlink(path: bytes) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108  # bytes
