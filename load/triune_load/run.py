"""A whole run: looks at the server, asks for the answers to expect, makes each load, judges."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .core.checks import CHECKS
from .core.repeats import RunChecks
from .core.saturation import find_saturation
from .core.slo import Search
from .core.workload import Workload
from .driver import Clock, Driver, Limits, LoopClock
from .errors import LoadError
from .live import Display
from .protocols.table import PROTOCOLS
from .sampling import Sampler
from .server import Found, held_requests, look_at, make_transport
from .settings import Load, Settings
from .step import Step
from .transports.transport import Transport
from .verdict import judge_run

Json = dict[str, Any]
FORMAT = 1
_STEP_SESSIONS = 10_000_000  # numbers of sessions that a step may use


async def run(settings: Settings, clock: Clock | None = None) -> Json:
    """Makes the run and gives its result, ready for JSON.

    Raises:
        LoadError: the server does not answer at all, or a setting is wrong.
    """
    clock = clock or LoopClock()
    info = PROTOCOLS[settings.target.protocol]
    found = await look_at(settings.target, clock, chat=any(part.kind != "text" for part in settings.parts))
    workload = Workload(settings.parts, seed=settings.seed, name=f"load-{os.getpid()}-{time.time_ns() // 1_000_000 % 10**8}")
    checks = RunChecks(settings.checks, found.promises, stall_s=settings.stall_s)
    transport = make_transport(settings.target, found.dialect, clock, reuse=found.reuse)
    began = datetime.now(UTC)
    display = Display(settings.display)
    try:
        async with Sampler(settings.target.metrics_url, settings.target.pids, trust=settings.target.trust) as sampler:
            if settings.checks:
                await _expect(workload, checks, transport, clock, settings)
            steps = await _Steps(settings, workload, checks, transport, clock, sampler, display, info.streams).run()
    finally:
        display.close()
        await transport.close()
    saturation = find_saturation(steps, slo_share=settings.slo_share)
    result: Json = {
        "format": FORMAT, "tool": _version(), "began": began.isoformat(timespec="seconds"), "command": settings.command,
        "target": {"url": settings.target.url, "protocol": settings.target.protocol, "model": found.dialect.model},
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(terse=True), "python": platform.python_version()},
        "settings": _described(settings, found), "steps": steps, "repeats_compared": checks.compared,
        "saturation": None if saturation is None else asdict(saturation),
    }  # fmt: skip
    return result | judge_run(result, settings)


async def _expect(workload: Workload, checks: RunChecks, transport: Transport, clock: Clock, settings: Settings) -> None:
    """Asks for every repeated request once, whole, while nothing else runs."""
    if "text" not in settings.checks:
        return
    limits = Limits(timeout_s=settings.timeout_s)
    driver = Driver(transport, clock, limits, streams=PROTOCOLS[settings.target.protocol].streams, ended=lambda _: None)
    for request in workload.repeats():
        answer = await driver.one(request)
        if answer.failure is not None:
            raise LoadError(
                f"the server does not answer {request.part!r} requests without a stream: {answer.failure.message}",
                "leave the check out, with --checks and all others, or have no repeats, with --repeats 0",
            )
        checks.expect(answer)


class _Steps:
    """The loads of a run, one after the other."""

    def __init__(
        self, settings: Settings, workload: Workload, checks: RunChecks, transport: Transport, clock: Clock, sampler: Sampler,
        display: Display, streams: bool,
    ) -> None:  # fmt: skip
        self._settings, self._workload, self._checks, self._transport = settings, workload, checks, transport
        self._clock, self._sampler, self._display, self._streams = clock, sampler, display, streams
        self._done: list[Json] = []
        self._interrupted = False

    async def run(self) -> list[Json]:
        """All of them; fewer if interrupted."""
        idle = await held_requests(self._settings.target) == 0
        if (plan := self._settings.search) is not None:
            search = Search(plan.least, plan.most, whole=plan.kind == "streams")
            while (value := search.next()) is not None and not self._interrupted:
                step = await self._one(Load(kind=plan.kind, value=round(value, 3)), None, idle)
                search.tell(
                    value, step["figures"].get("good_share", 0.0) >= self._settings.slo_share and not step["violations"]
                )
            return self._done
        for load in self._settings.loads:
            if not self._interrupted:
                await self._one(load, len(self._settings.loads), idle)
        return self._done

    async def _one(self, load: Load, of: int | None, idle: bool) -> Json:
        place = len(self._done)
        step = Step(
            self._settings, load, self._workload, self._checks, first=place * _STEP_SESSIONS, place=(place + 1, of), idle=idle
        )
        loop = asyncio.get_running_loop()
        try:
            found = await step.run(
                self._transport, self._clock, self._sampler, self._display, streams=self._streams,
                interrupt=lambda task: loop.add_signal_handler(signal.SIGINT, task.cancel),
            )  # fmt: skip
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        self._interrupted = step.interrupted
        self._done.append(found)
        return found


def _described(settings: Settings, found: Found) -> Json:
    """The settings for the report: as people wrote them."""
    return {
        "loads": [load.label for load in settings.loads] or (f"search of {settings.search.kind}" if settings.search else ""),
        "arrivals": settings.arrivals, "duration_s": settings.duration_s, "sessions": settings.sessions,
        "warmup_s": settings.warmup_s, "ramp_s": settings.ramp_s, "seed": settings.seed, "slo": str(settings.slo or ""),
        "slo_share": settings.slo_share, "stall_s": settings.stall_s, "max_errors": settings.max_errors,
        "checks": [name for name in CHECKS if name in settings.checks], "promises": asdict(found.promises),
        "parts": [
            {
                "name": p.name, "weight": p.weight, "kind": p.kind, "input_tokens": str(p.input_tokens),
                "output_tokens": str(p.output_tokens), "turns": p.turns, "prefix_tokens": p.prefix_tokens,
                "prefixes": p.prefixes, "repeats": p.repeats, "cancel": p.cancel, "slow": p.slow,
                "prompts": len(p.prompts), "ignore_eos": p.ignore_eos,
                "temperature": p.temperature,
            }
            for p in settings.parts
        ],
    }  # fmt: skip


def _version() -> str:
    try:
        return f"triune-load {version('triune-load')}"
    except PackageNotFoundError:
        return "triune-load"
