"""A stop can be asked for at any moment."""

from __future__ import annotations

import signal
import time
from types import FrameType

from triune_server.stopping import StopRequest


def test_a_signal_at_any_moment_of_waiting_is_heard() -> None:
    """With an event, one of these thousands arrives while its lock is held, and the handler waits for ever."""
    request = [StopRequest()]
    heard = asked = 0

    def handle(number: int, frame: FrameType | None) -> None:
        request[0].set()

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    end = time.monotonic() + 2.0
    try:
        while time.monotonic() < end:
            asked += 1
            heard += request[0].wait(5.0)
            request[0] = StopRequest()
            while not request[0].wait(0.0):
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert heard == asked > 100


def test_waiting_ends_by_itself() -> None:
    request = StopRequest()
    assert not request.wait(0.01)
    request.set()
    assert request.wait(0.01) and request.is_set()
