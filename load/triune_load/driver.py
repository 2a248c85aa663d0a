"""Asks: at times that were decided before (open loop), or so many at a time (closed loop). One thread, no clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .core.answer import Answer, Failure
from .core.request import Message, Request
from .core.workload import Session
from .transports.transport import Transport

Sessions = Iterator[Session]
_TICK_S = 1e-3  # timers of an event loop on Linux end up to so much late
_SPUN_MOST = 0.2  # of the time: making waits exact takes a processor, which the server may need
_SAVED_S = 20e-3  # of that, for requests that come close together


class Clock(Protocol):
    """Time in seconds, and waiting for it."""

    def now(self) -> float:
        """The time."""
        ...

    async def sleep_until(self, at: float) -> None:
        """Returns when it is `at`, or at once if it was."""
        ...


class LoopClock:
    """The event loop's own clock, which is monotonic and the same in all processes of a machine.

    The last tick of a wait is spent asking for the time, for as long as that stays within `_SPUN_MOST` of all time.
    """

    def __init__(self) -> None:
        self._credit_s, self._credited = _SAVED_S, 0.0  # that may be spent asking, as of that time

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep_until(self, at: float) -> None:
        wait = at - self.now()
        exact = self._has_credit()
        await asyncio.sleep(max(0.0, wait - _TICK_S if exact else wait))
        began = self.now()
        while exact and self.now() < at:  # others are served meanwhile
            await asyncio.sleep(0)
        self._credit_s -= self.now() - began

    def _has_credit(self) -> bool:
        now = self.now()
        self._credit_s = min(_SAVED_S, self._credit_s + _SPUN_MOST * (now - self._credited))
        self._credited = now
        return self._credit_s >= _TICK_S


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop, and how long to wait."""

    sessions: int | None = None  # most of them
    duration_s: float | None = None  # no session starts later
    timeout_s: float = 60.0  # longest silence of the server
    drain_s: float = 60.0  # for what is under way when no more starts

    def allow(self, number: int, offset_s: float) -> bool:
        """Whether session `number`, which would start at this offset, is within the limits."""
        within = self.sessions is None or number < self.sessions
        return within and (self.duration_s is None or offset_s < self.duration_s)


class Driver:
    """One load on one server.

    Args:
        transport: speaks the protocol.
        clock: of all times in the answers.
        streams: whether the protocol does; else requests are made unstreamed and are not left.
        ended: called with every answer as it ends.
    """

    def __init__(
        self, transport: Transport, clock: Clock, limits: Limits, *, streams: bool, ended: Callable[[Answer], None]
    ) -> None:
        self._transport, self._clock, self._limits, self._streams = transport, clock, limits, streams
        self._ended = ended
        self._open: dict[Answer, asyncio.Task[None]] = {}
        self.asked = 0
        self.begin = 0.0

    @property
    def open(self) -> int:
        """Requests under way."""
        return len(self._open)

    async def open_loop(self, sessions: Sessions, offsets: Iterator[float]) -> None:
        """Starts each session at its offset, whatever became of those before."""
        self.begin = self._clock.now() + 0.05  # the first is not late for what comes before it
        tasks: set[asyncio.Task[None]] = set()
        async with self._watched():
            for number, (offset, session) in enumerate(zip(offsets, sessions, strict=False)):
                if not self._limits.allow(number, offset):
                    break
                at = self.begin + offset
                prepared = self._prepare(session.request(0, ()))
                await self._clock.sleep_until(at)
                task = asyncio.ensure_future(self._session(session, at, prepared))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await self._drain(tasks)

    async def closed_loop(self, sessions: Sessions, starts: list[float]) -> None:
        """Keeps so many streams busy; each begins at its own offset and asks anew when its session is over."""
        counter = iter(range(1 << 62))
        ready: list[tuple[Session, tuple[Request, Any]]] = []  # made ahead, while others are waited for

        def fill() -> None:
            session = next(sessions)
            ready.append((session, self._prepare(session.request(0, ()))))

        async def stream(start: float) -> None:
            at = self.begin + start
            await self._clock.sleep_until(at)
            while self._limits.allow(next(counter), at - self.begin):
                if not ready:
                    fill()
                session, prepared = ready.pop()
                asking = asyncio.ensure_future(self._session(session, at, prepared))
                await asyncio.sleep(0)  # it is sent first
                fill()
                try:
                    await asking
                finally:
                    asking.cancel()
                at = self._clock.now()

        for _ in range(min(len(starts), self._limits.sessions or len(starts))):
            fill()
        self.begin = self._clock.now() + 0.05
        async with self._watched():
            tasks = {asyncio.ensure_future(stream(start)) for start in starts}
            if self._limits.duration_s is not None:
                await asyncio.wait(tasks, timeout=self.begin + self._limits.duration_s - self._clock.now())
                await self._drain(tasks)
            else:
                await asyncio.gather(*tasks)

    async def one(self, request: Request) -> Answer:
        """One request, now, and its answer."""
        async with self._watched():
            request, prepared = self._prepare(request)
            return await self._ask(request, prepared, self._clock.now(), told=False)

    async def _session(self, session: Session, at: float, prepared: tuple[Request, Any]) -> None:
        history: list[Message] = []
        for number, turn in enumerate(session.turns):
            if number:
                at = self._clock.now() + turn.wait_s
                prepared = self._prepare(session.request(number, history))
                await self._clock.sleep_until(at)
            request, body = prepared
            answer = await self._ask(request, body, at)
            if not answer.whole:
                return  # there is nothing to go on with
            history = [*request.messages, {"role": "assistant", "content": answer.text}]

    async def _ask(self, request: Request, prepared: Any, intended: float, *, told: bool = True) -> Answer:
        answer = Answer(request, intended)
        task = asyncio.current_task()
        assert task is not None
        self.asked += told
        self._open[answer] = task
        answer.started = answer.sent = self._clock.now()
        try:
            await self._transport.send(prepared, answer)
        except asyncio.CancelledError:
            if answer.failure is None:
                raise
            answer.ended = self._clock.now()
            task.uncancel()
        finally:
            del self._open[answer]
        if told:
            self._ended(answer)
        return answer

    def _prepare(self, request: Request) -> tuple[Request, Any]:
        if not self._streams:
            request = replace(request, stream=False, cancel_after=None)
        return request, self._transport.prepare(request)

    async def _drain(self, tasks: set[asyncio.Task[None]]) -> None:
        """Waits for what is under way; what takes too long is given up, one task after the other."""
        end = self._clock.now() + self._limits.drain_s
        while tasks and (left := end - self._clock.now()) > 0:
            _, tasks = await asyncio.wait(tasks, timeout=left)
        self._give_up("not ended", f"it was still under way {self._limits.drain_s:g} s after the last request began", 0.0)
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=1.0)
        for task in tasks:  # between two turns, or before its first request
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _watched(self) -> Any:
        watcher = asyncio.ensure_future(self._watch())
        try:
            yield
        finally:
            watcher.cancel()
            for task in list(self._open.values()):
                task.cancel()

    async def _watch(self) -> None:
        """Gives up answers that have been silent for too long. One timer for all: a timer for each chunk would cost more."""
        while True:
            await asyncio.sleep(min(0.5, self._limits.timeout_s / 4))
            self._give_up("timeout", f"nothing came for {self._limits.timeout_s:g} s", self._limits.timeout_s)

    def _give_up(self, kind: str, message: str, silent_s: float) -> None:
        now = self._clock.now()
        for answer, task in list(self._open.items()):
            if answer.failure is None and now - max(answer.sent, answer.seen) >= silent_s:
                answer.failure = Failure(kind, message)
                task.cancel()
