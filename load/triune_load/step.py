"""One load on one server, from its first request to its figures."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from .core.answer import Answer
from .core.arrivals import arrivals, stream_starts
from .core.checks import Violation
from .core.figures import figures, series
from .core.repeats import RunChecks
from .core.workload import Session, Workload
from .driver import Clock, Driver, Limits
from .live import Display
from .progress import Progress
from .sampling import Sampler
from .server import held_requests
from .settings import Load, Settings
from .transports.transport import Transport

_TOLD = 100  # violations of a step that are kept word by word
_LOOK_S = 0.5
_LATE_MS, _LATE_SHARE, _BUSY = 2.0, 0.05, 0.85  # of its start, of the first token, of a processor
Json = dict[str, Any]


class Step:
    """One load.

    Args:
        first: number of the first session: no prompt but the repeated ones comes in two steps.
        place: which step of how many, for the display; None where that is not known.
        idle: whether the server held nothing before; else what it holds afterwards says nothing.
    """

    def __init__(
        self, settings: Settings, load: Load, workload: Workload, checks: RunChecks, *, first: int,
        place: tuple[int, int | None], idle: bool,
    ) -> None:  # fmt: skip
        self._settings, self._load, self._workload, self._checks = settings, load, workload, checks
        self._first, self._place, self._idle = first, place, idle
        self._answers: list[Answer] = []
        self._violations: list[Violation] = []
        self._progress = Progress()
        self.interrupted = False

    async def run(
        self, transport: Transport, clock: Clock, sampler: Sampler, display: Display, *, streams: bool,
        interrupt: Callable[[asyncio.Future[None]], None],
    ) -> Json:  # fmt: skip
        """Makes the load and gives its figures; `interrupt` is told of the task that ctrl-C should cancel."""
        settings = self._settings
        measured_s = settings.duration_s
        limits = Limits(
            sessions=settings.sessions, duration_s=None if measured_s is None else measured_s + settings.warmup_s,
            timeout_s=settings.timeout_s, drain_s=settings.drain_s,
        )  # fmt: skip
        driver = Driver(transport, clock, limits, streams=streams, ended=self._took)
        showing = asyncio.ensure_future(self._show(driver, clock, display))
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection would stop everything for as long as it takes
        began, cpu = clock.now(), time.process_time()
        load = asyncio.ensure_future(self._drive(driver))
        interrupt(load)
        try:
            await load
        except asyncio.CancelledError:
            self.interrupted = True
        finally:
            gc.enable()
            gc.unfreeze()
            showing.cancel()
        wall, cpu = clock.now() - began, time.process_time() - cpu
        await self._see_freed(clock)
        return self._result(driver.begin, wall, cpu / max(wall, 1e-9), sampler)

    async def _drive(self, driver: Driver) -> None:
        settings, load = self._settings, self._load
        if load.kind == "streams":
            await driver.closed_loop(self._sessions(), stream_starts(int(load.value), settings.ramp_s))
        elif load.kind == "rate":
            rng = random.Random(f"{settings.seed}/arrivals/{load.value}")
            offsets = arrivals(settings.arrivals, load.value, rng, ramp_s=settings.ramp_s, burst=settings.burst)
            await driver.open_loop(self._sessions(), offsets)
        else:
            sessions = (
                self._workload.session(self._first + n, lengths=(row.input_tokens, row.output_tokens))
                for n, row in enumerate(settings.trace)
            )
            await driver.open_loop(sessions, (row.at for row in settings.trace))

    def _sessions(self) -> Iterator[Session]:
        return (self._workload.session(number) for number in itertools.count(self._first))

    def _took(self, answer: Answer) -> None:
        found = self._checks.check(answer)
        answer.texts = [answer.text]  # one string in place of one for each chunk
        self._answers.append(answer)
        self._violations += found
        self._progress.took(answer, found)

    async def _show(self, driver: Driver, clock: Clock, display: Display) -> None:
        place, of = self._place
        head = {"load": self._load.label, "step": place, "steps": of, "target": self._settings.target.url}
        while True:
            await asyncio.sleep(_LOOK_S)
            share, progress = self._share(clock.now() - driver.begin)
            look = self._progress.look(clock.now())
            display.show(head | look | {"open": driver.open, "share": share, "progress": progress})

    def _share(self, elapsed: float) -> tuple[float, str]:
        settings = self._settings
        if settings.sessions is not None:
            return min(
                1.0, self._progress.ended / settings.sessions
            ), f"{self._progress.ended:,} of {settings.sessions:,} requests"
        if settings.duration_s is None:
            last = max(settings.trace[-1].at, 1e-9) if settings.trace else 1.0
            return min(1.0, elapsed / last), f"{elapsed:.0f} of {last:.0f} s"
        whole = settings.duration_s + settings.warmup_s
        return min(1.0, elapsed / whole), f"{min(elapsed, whole):.0f} of {whole:.0f} s"

    async def _see_freed(self, clock: Clock) -> None:
        """Waits until the server says that it holds nothing."""
        if "freed" not in self._checks.enabled or not self._idle or self.interrupted:
            return
        end = clock.now() + self._settings.free_within_s
        while (left := await held_requests(self._settings.target)) and clock.now() < end:
            await asyncio.sleep(0.1)
        if left:
            message = f"the server still holds {left:g} requests {self._settings.free_within_s:g} s after the last answer"
            self._violations.append(Violation("freed", message))

    def _result(self, begin: float, wall: float, cpu_share: float, sampler: Sampler) -> Json:
        warm = begin + self._settings.warmup_s
        counted = [a for a in self._answers if a.intended >= warm]
        violating = frozenset(v.identity for v in self._violations)
        found = figures(counted, begin=warm, slo=self._settings.slo, violating=violating)
        found["samples"]["intended_s"] = [round(at - begin, 4) for at in found["samples"]["intended_s"]]
        return {
            "load": self._load.label, "kind": self._load.kind, "value": self._load.value, "figures": found,
            "warmup_s": self._settings.warmup_s, "wall_s": round(wall, 3), "asked": len(self._answers),
            "interrupted": self.interrupted, "series": series(self._answers, begin=begin),
            "violations": dict(Counter(v.check for v in self._violations)),
            "violations_told": [
                {"check": v.check, "message": v.message, "request": v.identity} for v in self._violations[:_TOLD]
            ],
            "server": _samples_within(sampler, begin, begin + wall + 1.0),
            "tool": _own_cost(found["latencies"], cpu_share),
        }  # fmt: skip


def _own_cost(latencies: Json, cpu_share: float) -> Json:
    """What the tool itself took; `disturbs` when that is part of what it measured."""
    lag = latencies.get("lag_ms")
    first = latencies.get("first_token_ms", {}).get("p50", 0.0)
    late = lag is not None and lag["p99"] > max(_LATE_MS, _LATE_SHARE * first)
    return {"cpu_share": round(cpu_share, 4), "lag_ms": lag, "disturbs": late or cpu_share > _BUSY}


def _samples_within(sampler: Sampler, begin: float, end: float) -> Json:
    """The server's samples of this step, with times from its begin; and what they say together."""
    kept = [s for s in sampler.samples if begin - 1 <= s["at"] <= end]
    found: Json = {"samples": [s | {"at": round(s["at"] - begin, 2)} for s in kept]}
    if memory := [s["memory_bytes"] for s in kept if "memory_bytes" in s]:
        found |= {"memory_most_bytes": max(memory), "processes": kept[-1].get("processes")}
    if len(kept) > 1 and "cpu_s" in kept[0] and "cpu_s" in kept[-1]:
        found["cpu_cores"] = round((kept[-1]["cpu_s"] - kept[0]["cpu_s"]) / max(1e-9, kept[-1]["at"] - kept[0]["at"]), 3)
    told = [s["metrics"] for s in kept if s.get("metrics")]
    if len(told) > 1:
        count = told[-1].get("queued", 0) - told[0].get("queued", 0)
        if count > 0:
            found["queue_mean_ms"] = round((told[-1]["queue_seconds"] - told[0]["queue_seconds"]) / count * 1e3, 3)
        for name in ("generated_tokens", "prompt_tokens", "aborted"):
            if name in told[0] and name in told[-1]:
                found[name] = told[-1][name] - told[0][name]
        for name in ("running", "waiting", "cache_usage"):
            if values := [one[name] for one in told if name in one]:
                found[f"{name}_most"] = max(values)
    return found
