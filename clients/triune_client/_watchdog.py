"""Ends a blocking wait that takes too long, from its own thread. Knows a flow and a way to cancel; no transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ._flow import Flow


class Watchdog:
    """Cancels a blocking stream that is silent for too long: grpc itself knows only a deadline for the whole call."""

    def __init__(self, flow: Flow, cancel: Callable[[], object]) -> None:
        self.fired = False
        self._flow = flow
        self._cancel = cancel
        self._stopped = threading.Event()
        self._since: float | None = time.monotonic()  # when the wait for the server began; None: nobody waits
        if flow.call.settings.timeout_s is not None:
            threading.Thread(target=self._watch, name="triune-client-watchdog", daemon=True).start()

    def waiting(self) -> None:
        """The reader waits for the server from now on."""
        self._since = time.monotonic()

    def served(self) -> None:
        """The reader has a chunk: the time it takes over it is not the server's silence."""
        self._since = None

    def stop(self) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        timeout_s = self._flow.call.settings.timeout_s
        assert timeout_s is not None, "a watchdog without a timeout is never started"
        pause_s = timeout_s
        while not self._stopped.wait(pause_s):
            since = self._since
            silence_s = 0.0 if since is None else time.monotonic() - since
            if silence_s >= timeout_s:
                self.fired = True
                self._cancel()
                return
            pause_s = timeout_s - silence_s
