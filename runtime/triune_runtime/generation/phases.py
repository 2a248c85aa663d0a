"""Records when the parts of steps begin and how long they take, while somebody asks for it.

What is timed is replaced on the objects of one generator, and put back: steps that nobody records pay nothing. Of a generator
that is no loop of ours, steps and requests are recorded, and not what a step consists of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..recorded import COMMIT, COUNTS, DRAFT, LAUNCH, PLAN, REQUEST, SAMPLE, STEP, TEXT, WAIT, Timed
from ..runner import Flight, Rows
from .generator import Generator
from .loop import StepLoop
from .step import Step

MOST_EVENTS = 100_000
_COUNT_EVERY = 50_000_000  # nanoseconds: counting hundreds of sequences takes a tenth of a millisecond


class Recording:
    """The events of a generator, from `begin` to `end`: both on the thread that steps it, between two steps."""

    def __init__(self, generator: Generator, most: int = MOST_EVENTS, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """
        Args:
            most: events that are kept; what comes later is counted alone.
        """
        self.events: list[Timed] = []
        self.dropped = 0
        self.began = self.ended = 0  # of the clock; both 0: it has not begun, or could not
        self._generator, self._most, self._clock = generator, most, clock
        self._replaced: list[tuple[object, str]] = []
        self._counted = 0
        self._open: dict[int, int] = {}  # when requests came, by key, of requests that are here
        self._planned: dict[str, int] = {}  # what the step consists of

    def begin(self) -> None:
        """Time what is called from now on; all of it or nothing."""
        try:
            self._replace_all()
        except BaseException:
            self.end()
            self.began = self.ended = 0
            raise

    def _replace_all(self) -> None:
        self.began, generator = self._clock(), self._generator
        self._replace(generator, "submit_group", self._submitting)
        self._replace(generator, "step", self._stepping)
        for method in ("abort", "abort_id"):
            self._replace(generator, method, self._aborting)
        if isinstance(generator, StepLoop):
            for owner, method, phase in (
                (generator.scheduler, "commit", COMMIT), (generator.sampler, "sample", SAMPLE),
                (generator.answers, "pieces", TEXT), (generator.drafts, "propose", DRAFT),
            ):  # fmt: skip
                self._replace(owner, method, partial(self._timed, phase))
            self._replace(generator.scheduler, "plan", self._planning)
            self._replace(generator.runner, "launch", self._launching)

    def end(self) -> None:
        """Put everything back. Requests that are not over end here."""
        for owner, method in reversed(self._replaced):
            delattr(owner, method)
        self._replaced.clear()
        for key in list(self._open):
            self._close(key)
        self.ended = self._clock()

    def _replace(self, owner: object, method: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        setattr(owner, method, around(getattr(owner, method)))
        self._replaced.append((owner, method))

    def _keep(self, name: str, began: int, about: dict[str, int] | None = None, took: int | None = None) -> None:
        if len(self.events) < self._most:
            self.events.append(Timed(name, began, self._clock() - began if took is None else took, about or {}))
        else:
            self.dropped += 1

    def _timed(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            began = self._clock()
            try:
                return call(*args, **more)
            finally:
                self._keep(phase, began)

        return timed

    def _planning(self, call: Callable[..., Step]) -> Callable[..., Step]:
        timed = self._timed(PLAN, call)

        def plan(*args: Any, **more: Any) -> Step:
            step: Step = timed(*args, **more)
            self._planned = _contents(step)
            return step

        return plan

    def _launching(self, call: Callable[..., Flight]) -> Callable[..., Flight]:
        timed = self._timed(LAUNCH, call)

        def launch(*args: Any, **more: Any) -> Flight:
            return _TimedFlight(timed(*args, **more), self)

        return launch

    def _submitting(self, call: Callable[..., None]) -> Callable[..., None]:
        def submit(requests: Any, *args: Any, **more: Any) -> None:
            now = self._clock()
            call(requests, *args, **more)
            self._open |= {request.key: now for request in requests}

        return submit

    def _stepping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            began, self._planned = self._clock(), {}
            events = call(*args, **more)
            took = self._clock() - began
            self._count()
            for event in events:
                self._open.setdefault(event.key, self.began)  # one that was here before
                if event.last:
                    self._close(event.key)
            self._keep(STEP, began, self._planned | {"requests": len(self._open)}, took)
            return events

        return step

    def _aborting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def abort(*args: Any, **more: Any) -> Any:
            events = call(*args, **more)
            for event in events:
                self._close(event.key)
            return events

        return abort

    def _count(self) -> None:
        if (now := self._clock()) - self._counted < _COUNT_EVERY:
            return
        self._counted, seen = now, self._generator.snapshot()
        self._keep(COUNTS, now, {
            "decoding": seen.decoding, "prefilling": seen.prefilling, "waiting": seen.waiting, "kv_used": seen.kv.used,
            "kv_blocks": seen.kv.blocks,
        })  # fmt: skip

    def _close(self, key: int) -> None:
        if (came := self._open.pop(key, None)) is not None:
            self._keep(REQUEST, came, {"key": key})

    def waited(self, began: int) -> None:
        """A flight was waited for."""
        self._keep(WAIT, began)

    def now(self) -> int:
        """The clock's nanoseconds."""
        return self._clock()


def _contents(step: Step) -> dict[str, int]:
    """Sequences that get a further token, the tokens before these, tokens of prompts, and of how many prompts."""
    decodes = [part for part in step.slices if part.start >= len(part.sequence.request.prompt)]
    return {
        "decodes": len(decodes), "context": sum(part.start for part in decodes), "prompts": len(step.slices) - len(decodes),
        "prompt_tokens": sum(part.length for part in step.slices) - sum(part.length for part in decodes),
    }  # fmt: skip


class _TimedFlight:
    """A flight; it is timed how long it is waited for."""

    def __init__(self, flight: Flight, recording: Recording) -> None:
        self._flight, self._recording = flight, recording

    def collect(self) -> Rows:
        began = self._recording.now()
        try:
            return self._flight.collect()
        finally:
            self._recording.waited(began)
