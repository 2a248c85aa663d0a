"""python -m bench.constraints: what a constrained answer costs a token, as a table and one JSON line.

The sampler runs on one thread, so its processor time is measured: other work on the machine hardly counts. Each case decodes
the same prompts in the bare loop; the free ones and the constrained ones take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.guide import Guide, json_schema
from triune_runtime.errors import TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Request, SamplingParams
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.tokenizer import TextTokenizer

from .machine import describe
from .prompts import prompt

SEQUENCES = (1, 8)
TOKENS, ROUNDS = 40, 2
_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 100},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "friends": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
    },
    "required": ["name", "age", "friends"],
}
GUIDES: dict[str, Guide | None] = {
    "free": None,
    "JSON schema": json_schema("schema", _PERSON),
    "any JSON": json_schema("schema", {"type": "array", "minItems": 100}),
    "regex": ("regex", "([a-z]{2,9} ){200}"),
}
_LARGE = {"type": "object", "properties": {f"p{i}": _PERSON | {"description": "x" * 20} for i in range(300)}}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Medians of one case; microseconds of processor time of the sampler for a token, milliseconds of a step."""

    case: str
    temperature: float
    sequences: int
    sampler_us: float
    step_ms: float


class Bench:
    """One engine and what is measured on it."""

    def __init__(self, folder: Path) -> None:
        self._manifest = EngineManifest.load(folder)
        self._tokenizer = TextTokenizer.load(folder, self._manifest)
        self._table = self._tokenizer.token_bytes()
        self._engine = step_loop(self._manifest, make_runner(self._manifest, folder), self._table, prefix_caching=False)
        self.compiler = ConstraintCompiler(self._manifest, self._table)
        self._key = 0

    def decode(self, guide: Guide | None, temperature: float, sequences: int) -> tuple[list[float], list[float]]:
        """Sampler's processor seconds for a token, and wall seconds, of each decoding step."""
        for number in range(sequences):
            self._key += 1
            params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=temperature, seed=number, guide=guide)
            ids = tuple(self._tokenizer.encode(prompt(number)))
            request = Request(key=self._key, prompt=ids, params=params)
            self._engine.submit(request, None if guide is None else self.compiler.make(guide, request))
        used, sample = 0.0, self._engine.sampler.sample

        def timed(*args: object) -> object:
            nonlocal used
            began = time.thread_time()
            try:
                return sample(*args)  # type: ignore[arg-type]
            finally:
                used += time.thread_time() - began

        self._engine.sampler.sample = timed  # type: ignore[method-assign,assignment]
        sampler, steps = [], []
        try:
            while self._engine.has_work:
                decoding, used = len(self._engine.scheduler.decoding), 0.0
                began = time.perf_counter()
                events = self._engine.step()
                for event in events:
                    if isinstance(event.item, TriuneError):
                        raise event.item
                if decoding == sequences:
                    sampler.append(used / sequences)
                    steps.append(time.perf_counter() - began)
        finally:
            self._engine.sampler.sample = sample  # type: ignore[method-assign]
        return sampler, steps

    def costs(self, temperature: float, sequences: int) -> list[Cost]:
        """All cases, taking turns."""
        sampler: dict[str, list[float]] = {case: [] for case in GUIDES}
        steps: dict[str, list[float]] = {case: [] for case in GUIDES}
        for _ in range(ROUNDS):
            for case, guide in GUIDES.items():
                of_sampler, of_steps = self.decode(guide, temperature, sequences)
                sampler[case] += of_sampler
                steps[case] += of_steps
        return [
            Cost(
                case=case,
                temperature=temperature,
                sequences=sequences,
                sampler_us=round(statistics.median(sampler[case]) * 1e6, 1),
                step_ms=round(statistics.median(steps[case]) * 1e3, 2),
            )
            for case in GUIDES
        ]


def compile_times(folder: Path) -> dict[str, float]:
    """Milliseconds of processor time until a guide is compiled: the first one, with the library; another; a large one."""
    manifest = EngineManifest.load(folder)
    table = TextTokenizer.load(folder, manifest).token_bytes()
    compiler, request = ConstraintCompiler(manifest, table), Request(key=1, prompt=(1,))
    times = {}
    cases: dict[str, Guide] = {
        "first": ("regex", "a"),
        "JSON schema": json_schema("schema", _PERSON),
        "the same again": json_schema("schema", _PERSON),
        f"{len(json.dumps(_LARGE)) // 1000} kB of schema": json_schema("schema", _LARGE),
    }
    for case, guide in cases.items():
        began = time.thread_time()
        compiler.make(guide, request)
        times[case] = round((time.thread_time() - began) * 1e3, 1)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("build/smollm2-135m/cpu/repository"))
    folder = parser.parse_args().repository / "generate" / "1"
    times = compile_times(folder)
    bench = Bench(folder)
    costs = [cost for temperature in (0.0, 1.0) for n in SEQUENCES for cost in bench.costs(temperature, n)]
    table = Table("answer", "temperature", "sequences", "sampler, µs of processor a token", "step, ms")
    for cost in costs:
        table.add_row(cost.case, f"{cost.temperature:g}", str(cost.sequences), f"{cost.sampler_us:.0f}", f"{cost.step_ms:.1f}")
    console = Console(width=110)
    console.print(table)
    console.print("compiling, ms of processor: " + ", ".join(f"{case} {ms:g}" for case, ms in times.items()))
    print(json.dumps({"machine": describe(), "compile_ms": times, "costs": [dataclasses.asdict(cost) for cost in costs]}))


if __name__ == "__main__":
    main()
