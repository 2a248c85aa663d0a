"""How a server ends without cutting anybody off: it takes in nothing new, and what is under way gets time to end.

The file of a `Drain` tells the server's processes: while it is there they refuse new requests, and at the time that it holds
they end what is left. Readiness is false from then on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from .asking import ask
from .draining_file import draining_file
from .options import ServerOptions

_GAUGES = {"vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting"}
_LOOK_S = 0.2
_SETTLED_S = 0.8  # so long nothing must be seen: the gauges are half a second old
_SILENCE_S = 5.0  # of the server's metrics: nobody is there to wait for
_ENDING_S = 2.0  # for what is left at the end to be told so


class Drain:
    """The file that says that a server is about to stop."""

    def __init__(self, run_folder: Path) -> None:
        self.file = draining_file(run_folder)

    def begin(self, grace_s: float) -> None:
        """Refuse new requests from now on, and end what is left of the others `grace_s` from now."""
        beside = self.file.with_suffix(".new")
        with suppress(OSError):  # a full disk: that it is there says that no new requests are taken
            beside.write_text(f"{time.time() + grace_s:.3f}\n", "ascii")
        with suppress(OSError):
            os.replace(beside, self.file)  # noqa: PTH105

    def clear(self) -> None:
        """Forget it."""
        self.file.unlink(missing_ok=True)


def under_way(options: ServerOptions) -> dict[str, int]:
    """How many requests are running and waiting, as the server's metrics say; empty where they do not answer."""
    found: dict[str, int] = {}
    try:
        text = ask(options.metrics_url, timeout_s=2.0).text
        for family in text_string_to_metric_families(text):
            if family.name in _GAUGES:  # of each engine that is served
                found[_GAUGES[family.name]] = int(sum(sample.value for sample in family.samples))
    except (httpx.HTTPError, OSError, ValueError):
        return {}
    return found


def wait_drained(options: ServerOptions, grace_s: float, pause: Callable[[float], bool]) -> bool:
    """Wait until nothing is under way, or `grace_s` and a moment are over; whether nothing is.

    Args:
        pause: waits so many seconds; true: give up.
    """
    busy_at = seen_at = time.monotonic()
    end = busy_at + grace_s + _ENDING_S
    while (now := time.monotonic()) < end and now - seen_at < _SILENCE_S:
        if seen := under_way(options):
            seen_at = now
        if not seen or any(seen.values()):
            busy_at = now
        if now - busy_at >= _SETTLED_S:
            return True
        if pause(_LOOK_S):
            return False
    return False
