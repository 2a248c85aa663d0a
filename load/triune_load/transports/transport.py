"""What the driver needs of a transport."""

from __future__ import annotations

from typing import Any, Protocol

from ..core.answer import Answer
from ..core.request import Request


class Transport(Protocol):
    """Sends requests of one protocol to one server."""

    def prepare(self, request: Request) -> Any:
        """The request's bytes or message, made before it is due."""
        ...

    async def send(self, prepared: Any, answer: Answer) -> None:
        """Sends it and fills the answer; what goes wrong is in the answer. It may be cancelled."""
        ...

    async def stays_open(self) -> bool:
        """Whether the connection of the last answer takes another request; waits a moment to see."""
        ...

    async def close(self) -> None:
        """Gives back the connections."""
        ...
