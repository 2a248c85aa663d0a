"""Tries whether the server behind generates a token. One at a time and once a second: everybody may ask for it."""

from __future__ import annotations

import asyncio
import math
import time

from triune_client import AsyncClient, Overloaded, TriuneError
from triune_client.grpc import AsyncGrpcClient

READY, FULL, NOT_READY = "ready", "full", "not ready"
_PATIENCE_S = 10.0
_FRESH_S = 1.0


class Trial:
    """The trial of one gateway and its latest result."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found, self._found_at = NOT_READY, -math.inf

    async def result(self, client: AsyncClient | AsyncGrpcClient) -> str:
        """READY: a token came; FULL: it was refused for want of room, which a server at work says; else NOT_READY."""
        async with self._lock:
            if time.monotonic() - self._found_at > _FRESH_S:
                self._found = await _generate(client)
                self._found_at = time.monotonic()
            return self._found


async def _generate(client: AsyncClient | AsyncGrpcClient) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await client.generate("a", max_tokens=1, max_retries=0)
    except Overloaded as error:
        return FULL if error.code == "overloaded" else NOT_READY
    except (TriuneError, TimeoutError):
        return NOT_READY
    return READY
