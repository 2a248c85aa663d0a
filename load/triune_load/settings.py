"""What a run is made with, complete and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .core.checks import CHECKS
from .core.slo import Slo
from .core.thresholds import Threshold
from .core.trace import Row
from .core.workload import Part
from .trust import PUBLIC, Trust


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server that is asked."""

    url: str
    protocol: str
    model: str | None = None  # None: the protocol's, or the first that the server lists
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)  # sent in every request
    metrics_url: str = ""
    trust: Trust = PUBLIC
    pids: tuple[int, ...] = ()
    perf_metrics: bool = True
    running_usage: bool = True
    sampling: bool = True


@dataclass(frozen=True, kw_only=True)
class Load:
    """How hard it is asked in one step."""

    kind: str  # streams, rate or trace
    value: float

    @property
    def label(self) -> str:
        if self.kind == "trace":
            return "the trace"
        one, several = ("stream", "streams") if self.kind == "streams" else ("request/s", "requests/s")
        return f"{self.value:g} {one if self.value == 1 else several}"


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """A search for the highest load within objectives."""

    kind: str  # streams or rate
    least: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    target: Target
    loads: tuple[Load, ...] = ()
    search: SearchPlan | None = None  # instead of loads
    trace: tuple[Row, ...] = ()
    arrivals: str = "poisson"
    burst: int = 8
    duration_s: float | None = 20.0
    sessions: int | None = None
    warmup_s: float = 2.0
    ramp_s: float = 0.0
    timeout_s: float = 60.0
    drain_s: float = 60.0
    parts: tuple[Part, ...] = (Part(),)
    seed: int = 0
    checks: frozenset[str] = frozenset(CHECKS)
    stall_s: float = 30.0
    free_within_s: float = 10.0
    slo: Slo | None = None
    slo_share: float = 0.95
    max_errors: float = 0.0
    thresholds: tuple[Threshold, ...] = ()
    json_file: Path | None = None
    html_file: Path | None = None
    junit_file: Path | None = None
    display: bool = True
    command: str = ""
