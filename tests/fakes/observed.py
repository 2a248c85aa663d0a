"""A server as the doctor has seen it, without one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes.nvml import gpu
from triune_runtime.recorded import Timed
from triune_server.doctor import where
from triune_server.doctor.observing import Observed
from triune_server.doctor.recording import Record
from triune_server.doctor.watching import Sample
from triune_server.options import ServerOptions
from triune_server.state import RunningServer

MS = 1_000_000
CPU = {"generate": 1.0, "front": 0.1}


def events(
    steps: int = 100, *, every_ms: int = 10, parts: Mapping[str, float], decoding: int = 4, waiting: int = 0, kv: int = 10
) -> list[Timed]:
    """Steps one after the other; `parts` are milliseconds of each."""
    made = list[Timed]()
    for step in range(steps):
        began = at = step * every_ms * MS
        for name, ms in parts.items():
            if name in where.PHASES and name != "rest":
                made.append(Timed(name, at, int(ms * MS), {}))
            at += int(ms * MS)
        made.append(Timed("step", began, at - began, {}))
    counts = {"decoding": decoding, "prefilling": 0, "waiting": waiting, "kv_used": kv, "kv_blocks": 16}
    made += [Timed("counts", step * every_ms * MS, 0, counts) for step in range(0, steps, 5)]
    return [*made, Timed("request", 0, steps * every_ms * MS, {"key": 7})]


def observed(
    made: Sequence[Timed],
    *,
    cores: Mapping[str, float] = CPU,
    others: float = 0.1,
    counts: Mapping[str, float] | None = None,
    **of_gpu: Any,
) -> Observed:
    one = Record("m", 4242, 16, 0, 0, 1000 * MS, tuple(made))
    gpus = (gpu(**of_gpu),) if of_gpu else ()
    return Observed(
        0, 1.0, (one,), (Sample(100 * MS, cores, others, gpus), Sample(400 * MS, cores, others, gpus)), counts or {}
    )


WELL: Mapping[str, float] = {"plan": 0.1, "launch": 8.0, "sample": 1.0, "rest": 0.4}


def running(tmp_path: Path, **more: Any) -> RunningServer:
    """One whose supervisor is this process."""
    return RunningServer(pid=os.getpid(), created=0.0, options=ServerOptions(repository=tmp_path), **more)
