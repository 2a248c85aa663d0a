"""Runs the application until it is told to stop, and lets what is under way end first."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from types import FrameType

import uvicorn

from .beating import Beats
from .intake import Intake
from .tls import Tls


class Server(uvicorn.Server):
    """uvicorn's, which on SIGTERM refuses new requests, waits for the others and ends those left; then it ends with code 0."""

    def __init__(self, config: uvicorn.Config, intake: Intake, drain_s: float, tls: Tls | None = None) -> None:
        """
        Args:
            drain_s: seconds that requests under way get to end.
            tls: what it speaks, looked at again and again.
        """
        super().__init__(config)
        self._tls = tls
        self._intake, self._drain_s = intake, drain_s
        self._stop_at: float | None = None
        self._beats = Beats()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._tls is not None:
            self._watching = asyncio.create_task(self._tls.watch())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._stop_at is not None:
            self.should_exit = True  # asked again, or by ctrl-C: at once
            self._intake.close()
            return
        self._intake.close()
        self._stop_at = time.monotonic() + self._drain_s

    async def on_tick(self, counter: int) -> bool:
        self._beats.beat()
        if self._stop_at is not None and (not self._intake.open or time.monotonic() >= self._stop_at):
            self.should_exit = True
        if self.should_exit:
            self._intake.end()
        return await super().on_tick(counter)
