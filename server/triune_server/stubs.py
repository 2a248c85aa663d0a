"""The processes of a server's models, which Triton starts: who they are, and whether one has died.

Where nothing can be seen for want of descriptors, nothing has changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

STUB = "triton_python_backend_stub"
_UNASKED_S = 2.0  # that nobody has asked for the exit code of one that starts


class Stubs:
    """Those of one tritonserver. Nobody is known before the first look."""

    def __init__(self, server: psutil.Process, wanted: Callable[[str], bool]) -> None:
        """
        Args:
            wanted: whether a model, by its folder's name, is to be there: the end of its process is a problem then.
        """
        self._server, self._wanted = server, wanted
        self._models: dict[psutil.Process, str] = {}  # the model of each; empty where that cannot be seen
        self._dead: dict[psutil.Process, float] = {}  # of those that start, and since when

    def look(self) -> None:
        """Know those that run now, and those that have died and that nobody has asked for their exit code."""
        if (children := self._children()) is not None:
            self._models = {stub: self._models.get(stub) or model_of(stub) for stub in children if is_stub(stub)}

    def lost(self) -> str | None:
        """Which one has died while the server starts: Triton then waits for its answer, for ever.

        If a model could not be loaded, Triton has seen its process end: that is no child any more, and Triton itself says why.
        """
        now, children = time.monotonic(), self._children() or []
        self._dead = {child: self._dead.get(child, now) for child in children if has_ended(child)}
        for child, since in self._dead.items():
            if now - since >= _UNASKED_S:
                return f"{_process_of(self._models.get(child, ''))} died (pid {child.pid})"
        self._models |= {child: model_of(child) for child in children if child not in self._dead and is_stub(child)}
        return None

    def problem(self) -> str | None:
        """Which of those that are known have died; None: nobody has."""
        dead = [stub.pid for stub, model in self._models.items() if has_ended(stub) and self._wanted(model)]
        return f"the Python process of a model died (pid {', '.join(map(str, dead))})" if dead else None

    @property
    def watched(self) -> dict[int, str]:
        """Those that must get on, by their ids, and what each is."""
        return {stub.pid: _process_of(model) for stub, model in self._models.items() if self._wanted(model)}

    def _children(self) -> list[psutil.Process] | None:
        """Without those of children: Triton tries a program in a shell before it starts it. None: they cannot be seen."""
        try:
            return self._server.children()
        except psutil.NoSuchProcess:
            return []
        except OSError:
            return None


def has_ended(process: psutil.Process) -> bool:
    """Whether it has ended; it may be that nobody has asked for its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # just now
        return True
    except OSError:
        return False


def _process_of(model: str) -> str:
    return f"the Python process of {model or 'a model'}"


def is_stub(process: psutil.Process) -> bool:
    """Whether it is the process of a model."""
    try:
        return bool(process.name().startswith(STUB[:15]))
    except (psutil.NoSuchProcess, OSError):
        return False


def model_of(stub: psutil.Process) -> str:
    """The folder's name of the model that a stub runs; empty if that cannot be seen."""
    try:
        return next((Path(one).parents[1].name for one in stub.cmdline() if one.endswith("/1/model.py")), "")
    except (psutil.Error, OSError):
        return ""
