"""Signs of life for the supervisor that has started this process, in the pipe that it gave, where it gave one."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

_PULSE = "TRIUNE_PULSE_FD"  # of the environment: the pipe's descriptor
_BEAT_S = 1.0


class Beats:
    """Those of one event loop: where it stands still, they stop."""

    def __init__(self) -> None:
        self._pulse, self._beat_at = os.environ.get(_PULSE), 0.0

    def beat(self) -> None:
        """Give a sign, if the last one is a second ago."""
        if self._pulse and (now := time.monotonic()) - self._beat_at >= _BEAT_S:
            self._beat_at = now
            with suppress(OSError):  # nobody listens
                os.write(int(self._pulse), f"{os.getpid()} 0\n".encode("ascii"))

    async def go_on(self) -> None:
        """Give them until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(_BEAT_S)
