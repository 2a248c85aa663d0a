"""python -m bench.gpu.prefix: where the time goes when many requests with one beginning come at once: tables and a JSON line.

The first step computes the first prompt alone, and the others wait for what it leaves. The second step, which computes their
ends, is planned and launched while the first one runs: until its tokens come, each part of each step is told. Without an engine
the loop runs over a device that computes nothing, in processor time: all of it is the host's. With `--engine`, on a GPU, by the
clock. The first round is told apart: there code is loaded and caches are filled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from .host import Profiled, free_manifest, free_runner

_OWN = 24  # tokens that each request has of its own
_ANSWER = 8  # tokens
_LEAST_MS = 0.02  # of a part that is worth a line
_STEPS = ("requests are sent", "the first step", "the second step", "its tokens come")


class Stage(NamedTuple):
    """What lies between two moments."""

    ms: float
    parts: dict[str, float]  # ms by part


def profiled(engine: Path | None, folder: Path, requests: int) -> Profiled:
    """A loop that finds prefixes, with what such a load adds to the parts of a step.

    Args:
        engine: None: nothing is computed.
        folder: for an engine that is none.
    """
    if engine is None:
        free_manifest(requests).save(folder)
    made = Profiled(engine or folder, None if engine else free_runner, prefix_caching=True)
    steps = made.loop.steps
    runner: Any = steps.runner
    for owner, method, part in (
        (steps, "submit", "the rest of sending"), (steps.answers, "check", "check tokens"), (steps.sampler, "add", "sampling"),
        (steps.scheduler, "add", "queue up"), (steps.scheduler.store, "admits", "look prompts up"),
        (steps.scheduler.store, "comes", "look prompts up"), (steps.scheduler.store, "admit", "give blocks"),
        (steps.scheduler.store, "settle", "name what is computed"), (runner._pool, "copy", "copy blocks"),
        (runner._tables, "flush", "block tables"), (runner._program, "enqueue", "launch the graph"),
        (runner._chooser, "prepare", "how tokens are chosen"), (runner._chooser, "enqueue", "choose"),
        (steps, "_count_started", "count what begins"),
    ):  # fmt: skip
        made.parts.time(owner, method, part)
    return made


def stages(made: Profiled, requests: int, prefix: int) -> list[Stage]:
    """Of one round, with a prefix that nobody has sent: `_STEPS`."""
    steps, parts, found = made.loop.steps, made.parts, list[Stage]()
    shared = made.loop.request(prefix, _ANSWER).prompt
    asked = [made.loop.request(_OWN, _ANSWER) for _ in range(requests)]
    asked = [type(one)(key=one.key, prompt=shared + one.prompt, params=one.params) for one in asked]
    parts.seconds.clear()
    last = parts.clock()

    def end() -> None:
        nonlocal last
        now = parts.clock()
        found.append(Stage(1e3 * (now - last), {name: 1e3 * seconds for name, seconds in parts.seconds.items()}))
        parts.seconds.clear()
        last = parts.clock()

    for request in asked:
        steps.submit(request)
    end()
    for _ in _STEPS[1:]:
        steps.step()
        end()
    started = sum(steps.answers[request.key].clocking.first is not None for request in asked)
    while steps.has_work:
        steps.step()
    assert started == requests, f"{started} of {requests} requests have a token after two steps: they have room for no more"
    return found


def medians(rounds: Sequence[Sequence[Stage]]) -> list[Stage]:
    """Of each stage, and of each of its parts."""
    found = []
    for same in zip(*rounds, strict=True):
        names = dict.fromkeys(name for stage in same for name in stage.parts)
        parts = {name: statistics.median(stage.parts.get(name, 0.0) for stage in same) for name in names}
        found.append(Stage(statistics.median(stage.ms for stage in same), parts))
    return found


def table(found: Sequence[Stage], first: Sequence[Stage], title: str) -> Table:
    """A column for each stage."""
    made = Table(Column("ms", no_wrap=True), *_STEPS[: len(found)], title=title)
    names = dict.fromkeys(name for stage in found for name, ms in stage.parts.items() if ms >= _LEAST_MS)
    for name in sorted(names, key=lambda name: -max(stage.parts.get(name, 0.0) for stage in found)):
        made.add_row(name, *(f"{stage.parts.get(name, 0.0):.2f}" for stage in found))
    made.add_section()
    for name, rows in (("all", found), ("in the first round", first)):
        made.add_row(name, *(f"{stage.ms:.2f}" for stage in rows))
    return made


def as_json(found: Sequence[Stage]) -> dict[str, Any]:
    return {name: {"ms": round(stage.ms, 3), **_rounded(stage.parts)} for name, stage in zip(_STEPS, found, strict=True)}


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(ms, 3) for name, ms in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.prefix", description=__doc__)
    parser.add_argument("--engine", type=Path, help="folder of engine.json, to run on a GPU; by default nothing is computed")
    parser.add_argument("--requests", type=int, nargs="+", default=[64, 8])
    parser.add_argument("--prefix", type=int, default=1500, help="tokens that all requests begin with")
    parser.add_argument("--rounds", type=int, default=5, help="after the first one")
    options = parser.parse_args()
    record: dict[str, Any] = {"engine": str(options.engine or "none"), "prefix": options.prefix}
    with tempfile.TemporaryDirectory() as folder:
        made = profiled(options.engine, Path(folder), max(options.requests))
        for requests in options.requests:
            first, *others = (stages(made, requests, options.prefix) for _ in range(1 + options.rounds))
            found = medians(others)
            Console().print(table(found, first, f"{requests} requests, a prefix of {options.prefix:,} tokens: medians"))
            record[str(requests)] = {"median": as_json(found), "first": as_json(first)}
        made.close()
    print(json.dumps(record))


if __name__ == "__main__":
    main()
