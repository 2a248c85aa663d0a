"""The planner's simulator beside a server of ours: the same requests, first token and time between tokens.

By turns the server is asked in closed loops, by a light Poisson process and by bursts. `triune load` writes down when each
request was due and how long it was; the engine records what each step consisted of and how long it took, as for `triune
profile`. To the steps of the closed loops the simulator's terms are fitted: so much for each number of sequences, for each
token before them, for each prompt and each of its tokens. Judged are the other two, of which the simulator gets times and
lengths of the requests and nothing else: medians over all requests, to the first token, and between tokens as the mean of each
request, for the server hands several tokens out as one piece where many are asked for.

On a machine that is not quiet a step takes longer at some times than at others. So it is said too how long the judged loads'
own steps took beside what the fit says of them, and what the simulator says with terms fitted to these: what is left then is
its own error.

Run: python -m bench.simulated REPOSITORY [--rounds 6]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triune_builder.planning.replica import Limits, Pace, serve
from triune_runtime.manifest import EngineManifest
from triune_runtime.recorded import STEP

from .machine import busy_share, describe
from .serving import Serving

LOADS = {"light": (0.2, "poisson"), "bursts": (0.6, "bursts")}  # requests/s, of those that fill every slot; how they come
LATENCIES = ("first_token_ms", "time_per_token_ms")
_BURST = 6  # requests that come together
_PROMPTS, _ANSWERS = (8, 120), (16, 64)  # words; tokens: several, so that there is time between them; all as likely
_LOOP_S, _TRACE_S = 3.0, 20.0  # of closed loops, of each number of streams; of a load that is judged
_BEGIN_S = 2.0  # of `triune load`, until it asks, and of an engine, until it looks whether it is to record
_REWEIGHED = 4
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """What a step consisted of: see `Recording`; and seconds until the next could begin."""

    decodes: int
    context: int
    prompts: int
    prompt_tokens: int
    seconds: float


@dataclass(frozen=True)
class Asked:
    """What came of one load: the requests by number of streams, or of all of a trace, and the engine's steps meanwhile."""

    samples: list[Mapping[str, Any]]
    steps: list[Step]


def steps_of(trace: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The steps that ran something, of a trace's events; who waits for its first request is not in a step."""
    found = []
    recorded = sorted((event for event in trace if event["name"] == STEP), key=lambda event: event["ts"])
    for event, following in pairwise(recorded):
        about = event["args"]
        took = following["ts"] - event["ts"] if about["requests"] else event["dur"]  # microseconds
        if about.get("decodes") or about.get("prompts"):
            found.append(Step(about["decodes"], about["context"], about["prompts"], about["prompt_tokens"], took / 1e6))
    return found


def fit(steps: Sequence[Step], limits: Limits) -> Pace:
    """The simulator's terms by least squares of what they are off by, as a share: means, as a request's time is of its steps.

    Straight lines between 1, 2, 4, ... sequences. A term below 0 is noise, and left out.
    """
    knots = _knots(limits.sequences)
    decodes = np.array([one.decodes for one in steps])
    columns = np.array(
        [_hat(decodes, knots, number) for number in range(len(knots))]
        + [[float(getattr(one, name)) for one in steps] for name in ("context", "prompts", "prompt_tokens")]
    ).T
    terms = _least_squares(columns, np.array([one.seconds for one in steps]))
    (context, prompt, token), counts = terms[len(knots) :], np.arange(limits.sequences + 1)
    batches = sum(terms[number] * _hat(counts, knots, number) for number in range(len(knots)))
    linear = token * np.arange(limits.step_tokens + limits.sequences + 1)
    return Pace(
        linear=linear.tolist(), overhead=(batches - linear[: len(counts)]).tolist(), context=context, pair=0.0, prompt=prompt
    )


def _knots(sequences: int) -> list[int]:
    return sorted({*(1 << n for n in range(sequences.bit_length())), sequences})


def _hat(counts: NDArray[np.int64], knots: Sequence[int], number: int) -> Floats:
    """1 at a knot, 0 at the others and at 0, straight in between."""
    return np.interp(counts, [0, *knots], [0.0, *(float(n == number) for n in range(len(knots)))])


def _least_squares(columns: Floats, seconds: Floats) -> Floats:
    kept = np.flatnonzero(columns.any(axis=0))
    weights, terms = 1 / seconds, np.zeros(columns.shape[1])
    for _ in range(_REWEIGHED):  # by what is expected: weighing by what was measured would make all terms too small
        while True:
            found = np.linalg.lstsq(columns[:, kept] * weights[:, None], seconds * weights, rcond=None)[0]
            if (found >= 0).all():
                break
            kept = np.delete(kept, found.argmin())
        terms[:] = 0
        terms[kept] = found
        weights = 1 / np.maximum(columns @ terms, 1e-6)
    return terms


def expected(steps: Sequence[Step], pace: Pace) -> float:
    """Seconds that steps take, all together, by a pace."""
    return sum(
        pace.overhead[one.decodes] + pace.linear[one.decodes + one.prompt_tokens]
        + pace.context * one.context + pace.prompt * one.prompts
        for one in steps
    )  # fmt: skip


class Asking:
    """`triune load` against one server, each load in a process of its own, while the engine records its steps."""

    def __init__(self, serving: Serving, limits: Limits) -> None:
        self._serving, self._limits = serving, limits

    def closed(self) -> Asked:
        """Closed loops of 1, 2, 4, ... streams, up to the slots."""
        streams = _knots(self._limits.sequences)
        return self._ask(len(streams) * (_LOOP_S + 1), "--streams", ",".join(map(str, streams)), "--duration", f"{_LOOP_S}s")

    def trace(self, arrivals: str, rate: float, seed: int) -> Asked:
        """Of so many requests a second."""
        return self._ask(_TRACE_S, "--rate", f"{rate:.3f}", "--arrivals", arrivals, "--burst", _BURST, "--duration",
                         f"{_TRACE_S}s", "--seed", seed)  # fmt: skip

    def _ask(self, seconds: float, *options: object) -> Asked:
        with tempfile.TemporaryDirectory() as folder:
            trace, figures = Path(folder) / "trace.json", Path(folder) / "load.json"
            recording = _begun("triune_server.entry", "profile", f"--run-folder={self._serving.run_folder}",
                               f"--seconds={seconds + _BEGIN_S}", f"--output={trace}", "--json")  # fmt: skip
            loading = _begun("triune_load", "--url", self._serving.grpc_url, "--protocol", "kserve-grpc", "--kind", "text",
                             "--ignore-eos", "--no-checks", "--quiet", "--json", figures, "--warmup", "0s",
                             "--input-tokens", "uniform:{}-{}".format(*_PROMPTS),
                             "--output-tokens", "uniform:{}-{}".format(*_ANSWERS), *options)  # fmt: skip
            for process in (loading, recording):
                said, _ = process.communicate()
                if process.returncode:
                    recording.kill()
                    raise SystemExit(f"{process.args} failed: {said.strip()[-500:]}")
            found = json.loads(figures.read_text("utf-8"))["steps"]
            steps = steps_of(json.loads(trace.read_text("utf-8"))["traceEvents"])
        return Asked([step["figures"]["samples"] for step in found], steps)


def _begun(*words: object) -> subprocess.Popen[str]:
    """A module of the project that runs."""
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def way(lone: Sequence[Mapping[str, Any]], pace: Pace, limits: Limits) -> float:
    """Seconds that a first token takes besides its steps, of requests that were alone: the median."""
    alone: list[float] = []
    for samples in lone:
        for prompt, first in zip(samples["input_tokens"], samples["first_token_ms"], strict=True):
            alone.append(first / 1e3 - serve([0.0], [prompt], [1], pace, limits).first[0])
    return statistics.median(alone)


def full_rate(loops: Asked, pace: Pace, limits: Limits) -> float:
    """Requests a second of the closed loops' lengths that keep every slot filled."""
    prompts, answers = (
        statistics.mean(n for samples in loops.samples for n in samples[name]) for name in ("input_tokens", "output_tokens")
    )
    most = limits.sequences
    step = pace.overhead[most] + pace.linear[most] + pace.context * most * (prompts + answers / 2)
    return 1 / (answers * step / most + serve([0.0], [round(prompts)], [1], pace, limits).first[0])


def simulated(samples: Mapping[str, Any], pace: Pace, limits: Limits, besides: float) -> dict[str, list[float]]:
    """Of each request of a trace, ms to the first token and between tokens.

    Args:
        besides: seconds of a first token besides its steps.
    """
    order = sorted(range(len(samples["intended_s"])), key=lambda n: samples["intended_s"][n])
    arrival, prompt, output = (
        np.array([samples[name][n] for n in order]) for name in ("intended_s", "input_tokens", "output_tokens")
    )
    served = serve(arrival.tolist(), prompt.tolist(), output.tolist(), pace, limits)
    first, last = np.array(served.first), np.array(served.last)
    found = 1e3 * (first - arrival + besides), 1e3 * (last - first) / np.maximum(output - 1, 1)
    return dict(zip(LATENCIES, (values.tolist() for values in found), strict=True))


def medians(traces: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Over the requests of all of them; of those that have the latency."""
    return {name: statistics.median(value for one in traces for value in one[name] if value is not None) for name in LATENCIES}


def judge(traces: Sequence[Asked], loops: Sequence[Asked], limits: Limits) -> dict[str, Any]:
    """Measured medians over all traces, and simulated ones: from the steps of the closed loops before and after each of them,
    and from its own."""
    seen, told, own, steps, took = list[Mapping[str, Any]](), list[Any](), list[Any](), 0.0, 0.0
    for one, around in zip(traces, pairwise(loops), strict=True):
        pace = fit([step for loop in around for step in loop.steps], limits)
        besides = way([loop.samples[0] for loop in around], pace, limits)
        steps += expected(one.steps, pace)
        took += sum(step.seconds for step in one.steps)
        for samples in one.samples:
            seen.append(samples)
            told.append(simulated(samples, pace, limits, besides))
            own.append(simulated(samples, fit(one.steps, limits), limits, besides))
    return {
        "requests": sum(len(samples["intended_s"]) for samples in seen), "steps": steps / took,
        "measured": medians(seen), "simulated": medians(told), "by_own_steps": medians(own),
    }  # fmt: skip


def run(repository: Path, rounds: int) -> dict[str, Any]:
    """All loads in turns."""
    bounds = EngineManifest.load(repository / "generate" / "1").limits
    limits = Limits(
        sequences=bounds.max_sequences, step_tokens=bounds.step_tokens, chunk=bounds.prefill_chunk,
        kv_tokens=bounds.max_sequences * bounds.max_length,
    )  # fmt: skip
    traces: dict[str, list[Asked]] = {name: [] for name in LOADS}
    with Serving(str(repository), openai=False) as serving:
        asking = Asking(serving, limits)
        asking.closed()  # it warms everything
        loops = [asking.closed()]
        for number in range(rounds):
            full = full_rate(loops[-1], fit(loops[-1].steps, limits), limits)  # of this minute
            for name, (share, arrivals) in LOADS.items():
                traces[name].append(asking.trace(arrivals, share * full, seed=number))
            loops.append(asking.closed())
    each = [fit(one.steps, limits) for one in loops]
    slots = [pace.overhead[limits.sequences] + pace.linear[limits.sequences] for pace in each]
    return {"loads": {name: judge(one, loops, limits) for name, one in traces.items()}, "full_step_s": slots}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulated", description=__doc__)
    parser.add_argument("repository", type=Path, help="of an engine, e.g. build/r1-nano/cpu/repository")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    busy, found = busy_share(), run(options.repository, options.rounds)
    heads = ("measured", "simulated", "ratio", "by its own steps", "ratio", "steps, fit / took")
    table = Table("load", "requests", "median, ms", *heads)
    for load, one in found["loads"].items():
        for name in LATENCIES:
            measured, ours, own = (one[kind][name] for kind in ("measured", "simulated", "by_own_steps"))
            figures = (measured, ours, ours / measured, own, own / measured, one["steps"])
            words = name.removesuffix("_ms").replace("_", " ")
            table.add_row(load, str(one["requests"]), words, *(f"{value:.2f}" for value in figures))
    Console().print(table)
    slots = found["full_step_s"]
    print(f"a step of all slots, fitted to each turn of closed loops: {min(slots) * 1e3:.1f} to {max(slots) * 1e3:.1f} ms")
    print(json.dumps({"machine": describe(), "busy_before": busy, **found}))


if __name__ == "__main__":
    main()
