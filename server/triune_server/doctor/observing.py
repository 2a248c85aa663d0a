"""A server that runs, looked at for some time: its engines' steps, its processes, its counts before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ..asking import ask
from ..options import ServerOptions
from ..state import RunningServer
from ..view import View
from .nvml import GpuState, no_gpus
from .recording import Record, record
from .watching import Sample, Watch
from .where import Where, where


@dataclass(frozen=True)
class Observed:
    """What was seen."""

    began: int  # nanoseconds of the monotonic clock
    seconds: float  # in which all of it was recorded
    records: tuple[Record, ...]
    samples: tuple[Sample, ...]
    counts: Mapping[str, float]  # by how much counters of the server have grown, by name and label
    silent: int = 0  # engines that are served and have recorded nothing

    @property
    def engines(self) -> dict[str, Where]:
        """Where the time of each engine goes, by its model."""
        return {one.model: where(one) for one in self.records}


def observe(
    running: RunningServer, run_folder: Path, seconds: float, gpus: Callable[[], tuple[GpuState, ...]] = no_gpus
) -> Observed:
    """Look for some time.

    Raises:
        ServerError: nothing can be recorded.
    """
    before = counters(running.options)
    with Watch(running.pid, gpus) as watch:
        records = record(run_folder, seconds)
    after = counters(running.options)
    began, ended = min(one.began for one in records), max(one.ended for one in records)
    kept = tuple(one for one in watch.samples if began <= one.at <= ended) or tuple(watch.samples)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    silent = max(0, len(View(run_folder).served()) - len(records))
    return Observed(began, (ended - began) / 1e9, tuple(records), kept, grown, silent)


def counters(options: ServerOptions) -> dict[str, float]:
    """The server's numbers, over all models: `name`, or `name:reason` where a series has one; empty: it does not answer."""
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(ask(options.metrics_url, timeout_s=2.0).text):
            for sample in family.samples:
                reason = sample.labels.get("reason") or sample.labels.get("finished_reason")
                name = f"{sample.name}:{reason}" if reason else sample.name
                found[name] = found.get(name, 0.0) + sample.value
    except (httpx.HTTPError, OSError, ValueError):
        return {}
    return found
