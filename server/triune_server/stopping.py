"""A request to stop that a signal handler may make."""

from __future__ import annotations

import queue
from contextlib import suppress


class StopRequest:
    """As `threading.Event`, of which only one thread waits, and which a handler of signals can set.

    An event's lock is held by the thread that waits, for moments: a handler that runs there then, and sets it, waits for itself
    for ever. `SimpleQueue.put` is made to be called from anywhere.
    """

    def __init__(self) -> None:
        self._made = False
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ask to stop."""
        self._made = True
        self._bell.put(None)

    def is_set(self) -> bool:
        """Whether it was asked for."""
        return self._made

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is asked for, or so long; whether it was."""
        if not self._made:
            with suppress(queue.Empty):
                self._bell.get(timeout=timeout_s)
        return self._made
