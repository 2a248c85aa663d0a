"""python -m bench.sampler: what choosing a step's tokens costs the host, as a table and one JSON line.

With --before PATH, of another checkout's sampler too: each runs in a process of its own, and both take turns, case by case. The
sampler runs on one thread, so its processor time is measured: other work on the machine counts only where it takes up memory.

Logits are made up to resemble a language model's: a normal bulk (deviation 2.2) over the whole vocabulary, and 64 tokens, other
ones in each row, whose logits fall from 20 by a power law of the rank. Its exponent differs from row to row (1 to 4), so that
at temperature 0.6 one token has nearly all the probability in some rows and 95% need dozens in others. Every step sees the same
logits at another position; a row, or 16 of them, may thus lie in the processor's cache, as they would behind a runner.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from .machine import describe

ROOT = Path(__file__).parents[1]
VOCABULARY, ROWS, ROUNDS = 151_936, (1, 16, 64, 256), 5
SECONDS, STEPS = 0.3, 3  # each case is run for at least that long and that often in each round
SAMPLED = {"temperature": 0.6, "top_p": 0.95}
CASES: dict[str, tuple[dict[str, float], bool]] = {  # parameters, whether the engine finds the best tokens
    "greedy, best tokens found": ({}, True),
    "greedy": ({}, False),
    "temperature 0.6, top-p 0.95": (SAMPLED, False),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians of one case over the rounds; milliseconds of processor time of a step."""

    case: str
    rows: int
    now_ms: float
    before_ms: float | None = None
    ratio: float | None = None  # before over now, the median of the rounds'


def made_up(rows: int, vocabulary: int) -> NDArray[np.float32]:
    """Logits [rows, vocabulary]: see the top of this file."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((rows, vocabulary), np.float32)
    logits *= 2.2
    ranks = np.arange(1, min(64, vocabulary) + 1)
    for row in logits:
        row[random.choice(vocabulary, len(ranks), replace=False)] = 20 - random.uniform(1, 4) * np.log(ranks)
    return logits


def stepper(params: dict[str, float], logits: NDArray[np.float32], found: bool) -> Callable[[], object]:
    """A step of the sampler that is on this process's path."""
    runner = importlib.import_module("triune_runtime.runner" if _exists("triune_runtime.runner") else "triune_runtime.runners")
    request = importlib.import_module("triune_runtime.request")
    best = runner.Best(logits.argmax(axis=1), logits.max(axis=1)) if found else None
    given = [request.SamplingParams(seed=seed, **params) for seed in range(len(logits))]
    if _exists("triune_runtime.sampling.rows"):
        from triune_runtime.sampling.host import choose
        from triune_runtime.sampling.rows import RowColumns, SampleRow

        columns = RowColumns([SampleRow(one, (1,)) for one in given], logits.shape[1])

        def step() -> object:
            choice = choose(logits, columns.now(), best=best)
            for row, token in zip(columns.rows, choice.tokens.tolist(), strict=True):
                row.push(token)
            return choice

        return step
    name = "triune_runtime.sampling.host" if _exists("triune_runtime.sampling") else "triune_runtime.sampler"
    sampler, keys, made = importlib.import_module(name).Sampler(logits.shape[1]), range(len(logits)), runner.Rows(logits, best)
    for key, one in enumerate(given):
        sampler.add(request.Request(key=key, prompt=(1,), params=one), frozenset())
    return lambda: sampler.sample(keys, made)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def serve() -> None:
    """Measure what each line asks for: {"case", "rows", "vocabulary"} -> seconds of a step, the median."""
    logits = np.empty((0, 0), np.float32)
    for line in sys.stdin:
        asked = json.loads(line)
        if logits.shape != (asked["rows"], asked["vocabulary"]):
            logits = made_up(asked["rows"], asked["vocabulary"])
        params, found = CASES[asked["case"]]
        step, times = stepper(params, logits, found), list[float]()
        step()
        began = time.perf_counter()
        while len(times) < STEPS or time.perf_counter() - began < SECONDS:
            before = time.thread_time()
            step()
            times.append(time.thread_time() - before)
        print(json.dumps(statistics.median(times)), flush=True)


class Side:
    """One checkout's sampler, in a process of its own."""

    def __init__(self, root: Path) -> None:
        path = os.pathsep.join([str(root / "runtime"), str(ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.sampler", "--serve"],
            env={**os.environ, "PYTHONPATH": path}, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def seconds(self, **asked: Any) -> float:
        """Of a step: the median of one round."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        return float(json.loads(process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def measure(sides: list[Side], case: str, rows: int, vocabulary: int, rounds: int) -> Cost:
    """One case of both sides, or of ours alone, which take turns."""
    times = [[side.seconds(case=case, rows=rows, vocabulary=vocabulary) for side in sides] for _ in range(rounds)]
    now, *before = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    cost = Cost(case=case, rows=rows, now_ms=now)
    if not before:
        return cost
    return dataclasses.replace(cost, before_ms=before[0], ratio=statistics.median(theirs / ours for ours, theirs in times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout whose sampler is measured too")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    sides = [Side(root) for root in (ROOT, args.before) if root is not None]
    try:
        costs = [measure(sides, case, n, args.vocabulary, args.rounds) for n in args.rows for case in CASES]
    finally:
        for side in sides:
            side.close()
    table = Table("rows", "case", "before: ms a step", "µs a row", "now: ms a step", "µs a row", "times faster")
    for cost in costs:
        before = ("", "") if cost.before_ms is None else _figures(cost.before_ms, cost.rows)
        faster = "" if cost.ratio is None else f"{cost.ratio:.1f}"
        table.add_row(str(cost.rows), cost.case, *before, *_figures(cost.now_ms, cost.rows), faster)
    Console(width=120).print(table)
    print(json.dumps({"machine": describe(), "vocabulary": args.vocabulary, "costs": [dataclasses.asdict(c) for c in costs]}))


def _figures(ms: float, rows: int) -> tuple[str, str]:
    return f"{ms:.3f}", f"{ms * 1e3 / rows:.2f}"


if __name__ == "__main__":
    main()
