"""What comes in: how many requests are under way, whether more are taken, and how the last ones are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import RETRY_AFTER_S, ApiError


class Intake:
    """The requests of one gateway, from the first to those that are under way when it stops. Of one event loop."""

    def __init__(self, draining_file: Path | None = None) -> None:
        """
        Args:
            draining_file: while it is there nothing is taken either: the server behind is about to stop.
        """
        self.open = 0  # requests under way
        self._file = draining_file
        self._closed = self._ended = False
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def closed(self) -> bool:
        """Whether new requests are refused."""
        return self._closed or (self._file is not None and self._file.exists())

    def close(self) -> None:
        """Refuse new requests from now on."""
        self._closed = True

    def end(self) -> None:
        """End the answers that are being made, each with an error."""
        self._ended = True
        for task in self._answering:
            task.cancel()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The task that runs the `with` block makes an answer, which `end` may end.

        Raises:
            ApiError: it was ended.
        """
        task = asyncio.current_task()
        assert task is not None, "an answer is made by a task"
        self._answering.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._ended:
                raise
            task.uncancel()
            raise stopping() from None
        finally:
            self._answering.discard(task)


def stopping() -> ApiError:
    """What is refused, or cut short, because this gateway or the server behind it is about to stop."""
    message = "The server is stopping; send the request again, to another server or later."
    return ApiError(503, message, kind="server_error", code="overloaded", retry_after_s=RETRY_AFTER_S)
