"""Has the engines of all sizes built, side by side, each by a process of the Python that has TensorRT (`worker.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triune_runtime.targets.device.plan import Profile

from ....errors import BuildError
from . import files, worker
from .run import DECODE, PREFILL
from .sizes import graph_sizes

_LIMIT_S = 1800.0  # for one engine: some forms were seen never to be done
_WORKER = Path(worker.__file__)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine that was built, or why not."""

    profile: Profile
    plan: Path
    seconds: float = 0.0
    parse_s: float = 0.0
    peak_bytes: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problem: str = ""  # empty: it was built

    @property
    def name(self) -> str:
        """For people."""
        p = self.profile
        return f"{p.name} of {p.tokens[0]} tokens" if p.name == PREFILL else f"{p.name} of {p.batch[0]} sequences"


def plan_name(profile: Profile) -> str:
    """The file of a profile's engine."""
    return f"{profile.name}.{max(profile.batch[0], profile.tokens[0])}.plan"


def build_engines(
    profiles: Sequence[Profile], graphs: Path, folder: Path, python: str, note: Callable[[str], None] = lambda _: None
) -> list[Engine]:
    """Build an engine of every profile into `folder`.

    A prompt's engine that cannot be built is left out: shorter ones do, and if there are none, those of one sequence's
    next token read prompts token by token.

    Args:
        graphs: the folder of the graphs of both kinds.
        python: the interpreter that has TensorRT.

    Raises:
        BuildError: an engine for decoding cannot be built.
    """
    began, done = time.monotonic(), 0

    def one(profile: Profile) -> Engine:
        nonlocal done
        engine = _build(profile, graphs, folder, python)
        done += 1
        note(f"{done} of {len(profiles)} engines, {time.monotonic() - began:.0f} s")
        return engine

    with ThreadPoolExecutor(min(len(profiles), len(os.sched_getaffinity(0)))) as threads:
        engines = list(threads.map(one, profiles))
    for engine in engines:
        if engine.problem and engine.profile.name == DECODE:
            raise BuildError(
                f"TensorRT cannot build the engine for a {engine.name}: {engine.problem}", "the text is TensorRT's own"
            )
    return engines


def published(engines: Sequence[Engine]) -> list[Engine]:
    """Those that were built, prompts first."""
    built = [engine for engine in engines if not engine.problem]
    if any(engine.profile.name == PREFILL for engine in built):
        return built
    single = next(engine for engine in built if engine.profile.batch[0] == 1)
    one = (1, 1, 1)
    return [Engine(profile=Profile(name=PREFILL, batch=one, tokens=one, logits=one), plan=single.plan), *built]


def _build(profile: Profile, graphs: Path, folder: Path, python: str) -> Engine:
    plan = folder / plan_name(profile)
    job, graph = plan.with_suffix(".json"), plan.with_suffix(".onnx")
    kind = DECODE if profile.tokens[0] == 1 else profile.name
    files.sized(graphs / f"{kind}.onnx", graph, graph_sizes(profile))
    job.write_text(json.dumps({"graph": str(graph), "plan": str(plan)}), "utf-8")
    problem = ""
    try:
        with job.with_suffix(".log").open("wb") as log:
            subprocess.run([python, str(_WORKER), str(job)], stdout=log, stderr=log, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        problem = f"it was not done after {_LIMIT_S:.0f} s"
    except OSError as error:
        raise BuildError(
            f"{python} cannot be run: {error.strerror}", "name a Python 3.10 that has the package tensorrt"
        ) from error
    result = _result(job.with_suffix(worker.RESULT))
    if not problem and (result is None or "error" in result or not plan.exists()):
        said = job.with_suffix(".log").read_text("utf-8", errors="replace").strip()[-500:]
        problem = f"it ended: {said}" if result is None else "; ".join([result["error"], *result["errors"]])[:2000]
    if not problem and result is not None and result["unread"]:
        problem = f"the parser left out what reads {', '.join(result['unread'])}"
    if problem or result is None:
        with contextlib.suppress(FileNotFoundError):
            plan.unlink()
        return Engine(profile=profile, plan=plan, problem=problem)
    return Engine(
        profile=profile,
        plan=plan,
        seconds=result["seconds"],
        parse_s=result["parse_s"],
        peak_bytes=result["peak_bytes"],
        layers=result["layers"],
        warnings=tuple(result["warnings"]),
    )


def _result(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def this_or(python: str) -> str:
    """The interpreter to ask, by default this one."""
    return python or sys.executable
