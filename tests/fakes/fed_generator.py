"""Another engine behind the same answers: tokens come from elsewhere, when they come, some of them together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fakes.runtime import TOKENS, make_manifest
from triune_runtime.constraints import Constraint
from triune_runtime.errors import Overloaded
from triune_runtime.generation.answers import Answers, Wanted, everyone
from triune_runtime.kv.store import KvUsage
from triune_runtime.manifest import Limits
from triune_runtime.metrics import Metrics, Snapshot
from triune_runtime.request import Event, FinishReason, Request

Tokens = Callable[[Request], Sequence[int]]


class FedGenerator:
    """See `Generator`: it knows each answer's tokens beforehand, and hands some of them in at every step."""

    def __init__(
        self, tokens: Tokens, rng: random.Random, *, clock: Callable[[], float] = lambda: 0.0, most: int = 3, **limits: int
    ) -> None:
        """
        Args:
            most: tokens of an answer that are handed in at a step.
        """
        manifest = make_manifest(**limits)
        self.limits: Limits = manifest.limits
        self.metrics = Metrics(self.snapshot())
        self.started = False
        self._answers = Answers(manifest, TOKENS, self.metrics, clock)
        self._tokens, self._rng, self._clock, self._most = tokens, rng, clock, most
        self._left: dict[int, list[int]] = {}

    @property
    def has_work(self) -> bool:
        return bool(self._answers)

    def start(self) -> None:
        self.started = True

    def submit_group(self, requests: Sequence[Request], constraints: Sequence[Constraint | None] = ()) -> None:
        for request in requests:
            self._answers.check(request)
        for request in requests:
            self._answers.open(request, request.params.max_tokens or self.limits.max_length - len(request.prompt))
            self._left[request.key] = list(self._tokens(request))

    def abort(self, key: int, reason: FinishReason = "cancelled") -> list[Event]:
        return [self._answers.finish(key, reason)] if key in self._answers else []

    def abort_id(self, request_id: str) -> list[Event]:
        return [event for key in self._answers.named(request_id) for event in self.abort(key)]

    def step(self, wanted: Wanted = everyone) -> list[Event]:
        events = [event for key in self._answers.late() for event in self.abort(key, "deadline")]
        for key in self._answers.keys:
            served = self._answers[key]
            if served.clocking.started is None:
                self._answers.started(key)
            for _ in range(self._rng.randint(0, self._most)):
                if key in self._answers and (last := self._answers.take_in(served, self._left[key][:1], self._clock())):
                    events.append(last)
                self._left[key] = self._left[key][1:]
        return events + self._answers.pieces(wanted())

    def rest(self) -> None: ...

    def snapshot(self) -> Snapshot:
        return Snapshot(slots=1, kv=KvUsage(blocks=1, used=0, block_tokens=1))

    def close(self) -> list[Event]:
        return self._answers.fail(self._answers.keys, Overloaded("the server is stopping", "send it again later"))
