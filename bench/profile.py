"""python -m bench.profile: where the time of the bare loop's steps goes, as a table and one JSON line."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from rich.console import Console
from rich.table import Table

from triune_runtime.errors import TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import TextTokenizer

from .prompts import prompt

SEQUENCES = (1, 8)
TOKENS = 64
P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch:
    """Adds up the time spent in the calls it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, with its time added."""

        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return wrapped


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of one kind of steps went; seconds, all of them together."""

    sequences: int
    kind: str  # "prefill": steps with a part of a prompt in them; "decode": the steps after
    steps: int
    runner: float
    sampler: float
    rest: float  # planning, text, metrics, events

    @property
    def total(self) -> float:
        return self.runner + self.sampler + self.rest


class Profiler:
    """An engine whose runner and sampler are timed."""

    def __init__(self, folder: Path) -> None:
        """Load the engine in `folder`.

        Raises:
            ManifestError: it cannot be loaded.
        """
        manifest = EngineManifest.load(folder)
        self._tokenizer = TextTokenizer.load(folder, manifest)
        runner, table = make_runner(manifest, folder), self._tokenizer.token_bytes()
        self._engine = step_loop(manifest, runner, table, prefix_caching=False)  # what is measured is to be computed
        self._runner, self._sampler, self._step = Stopwatch(), Stopwatch(), Stopwatch()
        # Replaced on these two objects alone: the engine calls them through its attributes, and no hook is needed in it.
        self._engine.runner.run = self._runner.timed(self._engine.runner.run)  # type: ignore[method-assign]
        self._engine.sampler.sample = self._sampler.timed(self._engine.sampler.sample)  # type: ignore[method-assign]
        self._keys = 0

    def measure(self, sequences: int, tokens: int) -> list[Profile]:
        """Serve that many sequences to their end; first the steps with prompts in them, then those without."""
        for _ in range(sequences):
            self._keys += 1
            params = SamplingParams(max_tokens=tokens, ignore_eos=True)
            ids = tuple(self._tokenizer.encode(prompt(self._keys)))
            self._engine.submit(Request(key=self._keys, prompt=ids, params=params))
        scheduler = self._engine.scheduler
        return [
            self._run_while("prefill", sequences, lambda: bool(scheduler.waiting or scheduler.prefilling)),
            self._run_while("decode", sequences, lambda: self._engine.has_work),
        ]

    def _run_while(self, kind: str, sequences: int, more: Callable[[], bool]) -> Profile:
        for watch in (self._runner, self._sampler, self._step):
            watch.seconds = 0.0
        steps = 0
        while more():
            for event in self._step.timed(self._engine.step)():
                if isinstance(event.item, TriuneError):
                    raise event.item
            steps += 1
        runner, sampler = self._runner.seconds, self._sampler.seconds
        rest = self._step.seconds - runner - sampler
        return Profile(sequences=sequences, kind=kind, steps=steps, runner=runner, sampler=sampler, rest=rest)


def table(profiles: list[Profile]) -> Table:
    """Milliseconds a step, and shares."""
    made = Table(title="milliseconds a step, and where they go")
    for column in ("sequences", "kind", "steps", "ms", "runner", "sampler", "rest"):
        made.add_column(column, justify="right")
    for p in profiles:
        parts = [f"{part / p.steps * 1e3:.2f} ({part / p.total:.1%})" for part in (p.runner, p.sampler, p.rest)]
        made.add_row(str(p.sequences), p.kind, str(p.steps), f"{p.total / p.steps * 1e3:.2f}", *parts)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"), help="its engine runs")
    folder = parser.parse_args().repository / "generate" / "1"
    profiler = Profiler(folder)
    profiler.measure(max(SEQUENCES), 8)  # warm
    profiles = [part for sequences in SEQUENCES for part in profiler.measure(sequences, TOKENS)]
    Console().print(table(profiles))
    print(json.dumps([asdict(p) for p in profiles]))


if __name__ == "__main__":
    main()
