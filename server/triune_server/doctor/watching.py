"""What the processes of a server, the machine and its GPUs do while a server is recorded."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from ..stubs import is_stub, model_of
from .nvml import GpuState, no_gpus

_EVERY_S = 0.25


@dataclass(frozen=True)
class Sample:
    """One look; `cores` are those that were busy since the look before."""

    at: int  # nanoseconds of the monotonic clock
    cores: Mapping[str, float]  # by process
    others: float  # of the server's cores, those that all else kept busy
    gpus: tuple[GpuState, ...] = ()


@dataclass
class Watch:
    """Looks until it is left, as a `with` block.

    Attributes:
        gpus: asks the driver.
    """

    pid: int  # of the supervisor
    gpus: Callable[[], tuple[GpuState, ...]] = no_gpus
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Watch:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_until_over, name="triune-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _look_until_over(self) -> None:
        cores = cores_of(self.pid)
        before, at, whole = _used(self.pid), time.monotonic_ns(), _busy(cores)
        while not self._over.wait(_EVERY_S):
            now, when, all_now = _used(self.pid), time.monotonic_ns(), _busy(cores)
            passed = (when - at) / 1e9
            own = {name: max(seconds - before.get(name, seconds), 0.0) / passed for name, seconds in now.items()}
            others = max((all_now - whole) / passed - sum(own.values()), 0.0)
            self.samples.append(Sample(when, own, others, self.gpus()))
            before, at, whole = now, when, all_now


def _used(pid: int) -> dict[str, float]:
    """Seconds of a processor's time by process of the server so far."""
    found: dict[str, float] = {}
    with suppress(psutil.Error):
        supervisor = psutil.Process(pid)
        for process in (supervisor, *supervisor.children(recursive=True)):
            with suppress(psutil.Error):
                times, name = process.cpu_times(), "supervisor" if process.pid == pid else name_of(process)
                found[name] = found.get(name, 0.0) + times.user + times.system
    return found


def name_of(process: psutil.Process) -> str:
    """What a process of a server is."""
    if is_stub(process):
        return model_of(process) or "a model"
    said = " ".join(process.cmdline())
    known = {"triune_gateway.kserve": "front", "triune_gateway": "gateway", "bin/tritonserver": "tritonserver"}
    return next((name for part, name in known.items() if part in said), process.name())


def engines_of(pid: int) -> dict[str, psutil.Process]:
    """The processes that run engines, by the names of Triton's models."""
    with suppress(psutil.Error):
        every = [one for one in psutil.Process(pid).children(recursive=True) if is_stub(one)]
        return {name: one for one in every if (name := model_of(one)).rpartition("__")[2] == "generate"}
    return {}


def family_of(process: psutil.Process) -> list[int]:
    """The ids of a process and of all that it has started."""
    with suppress(psutil.Error):
        return [process.pid, *(one.pid for one in process.children(recursive=True))]
    return [process.pid]


def cores_of(pid: int) -> frozenset[int]:
    """The cores that a process may run on: in a container the machine has more."""
    try:
        return frozenset(os.sched_getaffinity(pid))
    except OSError:  # it has ended
        return frozenset(os.sched_getaffinity(0))


def _busy(cores: frozenset[int]) -> float:
    """Seconds that these cores together have worked, for whomever."""
    every = psutil.cpu_times(percpu=True)
    times = [one for core, one in enumerate(every) if core in cores]
    return float(sum(sum(one) - one.idle - getattr(one, "iowait", 0.0) - getattr(one, "guest", 0.0) for one in times))
