"""What a worker needs of whatever generates tokens: our own loop of steps, or another engine behind the same answers."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Protocol

from ..constraints import Constraint
from ..manifest import Limits
from ..metrics import Metrics, Snapshot
from ..request import Event, FinishReason, Request
from .answers import Wanted, everyone


class Generator(Protocol):
    """Serves requests. Every accepted one ends in exactly one last event. One thread at a time, but for `limits`."""

    @property
    def limits(self) -> Limits: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        ...

    def start(self) -> None:
        """Called once, on the thread that will step, before everything else."""
        ...

    def submit_group(self, requests: Items[Request], constraints: Items[Constraint | None] = ()) -> None:
        """Queue requests for one prompt; their keys must not be those of others being served.

        Args:
            constraints: one a request, or none at all: what its answer must look like, the request's own.

        Raises:
            RequestError: the request asks for what cannot be served.
            TooLong: prompt and max_tokens do not fit.
            Overloaded: the queue is full.
        """
        ...

    def abort(self, key: int, reason: FinishReason = "cancelled") -> list[Event]:
        """End a request now; nothing if it is not being served any more."""
        ...

    def abort_id(self, request_id: str) -> list[Event]:
        """End every request that its client named `request_id`: one event each."""
        ...

    def step(self, wanted: Wanted = everyone) -> list[Event]:
        """Go on: every answer that has ended, and pieces of those that are streams and `wanted`."""
        ...

    def rest(self) -> None:
        """Called every few seconds between two steps, and while there is nothing to do: give back what nobody needs."""
        ...

    def snapshot(self) -> Snapshot:
        """How full it is."""
        ...

    def close(self) -> list[Event]:
        """End everything: who has part of an answer gets the rest of that part, who still waits may ask elsewhere."""
        ...
