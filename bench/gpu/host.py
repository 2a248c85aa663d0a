"""python -m bench.gpu.host: what of a decoding step is the host's, and what it waits for the GPU: a table and one JSON line.

Without an engine the whole loop runs over a device that computes nothing: no GPU is needed, and all is the host's. With
`--engine`, on a GPU: a host that hardly waits is what bounds the steps.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from triune_runtime.manifest import CacheTensor, EngineManifest, Limits
from triune_runtime.runner import Flight, Runner
from triune_runtime.targets.cuda.choosing import Chooser
from triune_runtime.targets.cuda.feeding import KERNELS, KernelFeeder
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.cuda.protocols import StepBuffers, StepShape
from triune_runtime.targets.cuda.runner import PagedRunner, step_sizes

from .loop import Loop

P = ParamSpec("P")
T = TypeVar("T")
WAIT, GARBAGE = "wait for the GPU", "garbage collection"
VOCABULARY = 151_936  # of DeepSeek-R1-Distill-Qwen


class Parts:
    """Seconds by part, without those of the parts within it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # of each part that is on: what those within it have taken
        self._collecting = 0.0
        gc.callbacks.append(self._collect)

    def time(self, owner: Any, method: str, part: str) -> None:
        """Let the calls of one object's method count as `part`."""
        setattr(owner, method, self.timed(getattr(owner, method), part))

    def timed(self, call: Callable[P, T], part: str) -> Callable[P, T]:
        """`call`, whose time counts as `part`."""

        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            self._inner.append(0.0)
            began = self.clock()
            try:
                return call(*args, **kwargs)
            finally:
                took = self.clock() - began
                self.seconds[part] = self.seconds.get(part, 0.0) + took - self._inner.pop()
                self._inner[-1] += took

        return wrapped

    def close(self) -> None:
        """Time nothing more of what is collected."""
        gc.callbacks.remove(self._collect)

    def _collect(self, phase: str, info: Mapping[str, int]) -> None:
        """Let collections of garbage be a part of their own, wherever they come."""
        if phase == "start":
            self._collecting = self.clock()
            return
        took = self.clock() - self._collecting
        self.seconds[GARBAGE] = self.seconds.get(GARBAGE, 0.0) + took
        self._inner[-1] += took


class _Nothing:
    """Device, event, program and kernel that do nothing; its memory is read as zeros."""

    stream, replays = 0, False

    def __init__(self) -> None:
        self._next = 1 << 20

    def allocate(self, size: int) -> int:
        self._next += size + (-size) % 256
        return self._next

    def host(self, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def upload(self, target: int, source: NDArray[Any]) -> None: ...
    def download(self, target: NDArray[Any], source: int) -> None: ...
    def copy_rows(self, target: int, source: int, *, rows: int, width: int, pitch: int) -> None: ...
    def synchronize(self) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...
    def record(self) -> None: ...
    def wait(self) -> None: ...
    def bind_cache(self, addresses: Mapping[str, int], blocks: int) -> None: ...
    def enqueue(self, buffers: StepBuffers, shape: StepShape, bounds: NDArray[np.int32], number: int | None = None) -> None: ...

    def launch(
        self,
        stream: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        arguments: Sequence[np.generic],
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None: ...

    def event(self) -> _Nothing:
        return self

    def capture(self, queue: Callable[[], None]) -> Callable[[], None]:
        return self.synchronize

    def memory(self) -> tuple[int, int]:
        return 80 << 30, 80 << 30


def free_runner(manifest: EngineManifest, folder: Path) -> PagedRunner:
    """The runner of CUDA engines over a device that computes nothing."""
    nothing = _Nothing()
    chooser = Chooser(nothing, nothing, vocab_size=manifest.vocab_size, rows=step_sizes(manifest.limits).rows)
    feeder = KernelFeeder(0, dict.fromkeys(KERNELS, nothing))
    return PagedRunner(manifest, nothing, nothing, feeder, chooser)


def free_manifest(sequences: int) -> EngineManifest:
    """An engine of DeepSeek-R1-Distill-Qwen-1.5B's shape, as far as the host can tell."""
    cache = tuple(CacheTensor(name=f"{n}", heads=2, dim=128, dtype="float16") for n in range(2 * 28))
    return EngineManifest(
        model="free", architecture="", target="cuda", precision="", engine="", vocab_size=VOCABULARY, cache=cache,
        stop_token_ids=(), limits=Limits(max_sequences=sequences, max_length=4096, prefill_chunk=8192),
        plan=CudaPlan(dtype="bfloat16", block_tokens=128).to_json(),
    )  # fmt: skip


class Profiled:
    """A loop whose parts are timed."""

    def __init__(
        self,
        folder: Path,
        make: Callable[[EngineManifest, Path], Runner] | None = None,
        *,
        prefix_caching: bool = False,
    ) -> None:
        self.loop = Loop(folder, make, prefix_caching=prefix_caching)
        # Where nobody is waited for, processor time: it leaves out what others on the machine take.
        self.parts = Parts(time.perf_counter if make is None else time.thread_time)
        steps = self.loop.steps
        # Replaced on these objects alone: they call each other through their attributes, and no hook is needed in them.
        for owner, method, part in (
            (steps, "step", "the rest of a step"), (steps.scheduler, "plan", "plan"), (steps.scheduler, "commit", "commit"),
            (steps._stepper, "launch", "work items"), (steps.sampler, "columns", "sampling columns"),
            (steps.sampler, "sample", "sample"), (steps._stepper, "land", "who gets tokens"),
            (steps.answers, "pieces", "pieces of text"), (steps, "_land", "tokens to answers"),
        ):  # fmt: skip
            self.parts.time(owner, method, part)
        runner: Any = steps.runner
        for owner, method, part in (
            (runner._decodes, "queue", "queue"), (runner._packed, "queue", "queue"),
            (runner._results, "fetch_batch", "queue copies back"), (runner._results, "fetch", "queue copies back"),
        ):  # fmt: skip
            self.parts.time(owner, method, part)
        launch = self.parts.timed(runner.launch, "split into parts")

        def launched(*args: Any) -> Flight:
            flight: Any = launch(*args)
            self.parts.time(flight, "collect", WAIT)
            return flight  # type: ignore[no-any-return]

        runner.launch = launched

    def decode(self, sequences: int, steps: int) -> dict[str, Any]:
        """Microseconds of each part of a step in which so many sequences get a token each, and of prompts before it."""
        loop = self.loop.steps
        for _ in range(sequences):
            loop.submit(self.loop.request(512, steps + 16))
        began, prompts = self.parts.clock(), 0
        while len(loop.scheduler.decoding) < sequences:
            loop.step()
            prompts += 1
        prompt_s = (self.parts.clock() - began) / prompts
        taken, parts = list[float](), dict[str, list[float]]()
        for number in range(-4, steps):
            self.parts.seconds.clear()
            before = self.parts.clock()
            loop.step()
            if number >= 0:
                taken.append(self.parts.clock() - before)
                for name, seconds in self.parts.seconds.items():
                    parts.setdefault(name, [0.0] * steps)[number] = seconds
        while loop.has_work:
            loop.step()
        waits = parts.get(WAIT, [0.0])
        return {
            "sequences": sequences, "step_us": _us(statistics.median(taken)), "mean_us": _us(statistics.mean(taken)),
            "worst_us": _us(max(taken)), "host_us": _us(statistics.median(map(float.__sub__, taken, waits))),
            "waited_us": _us(statistics.median(waits)), "prompt_step_us": _us(prompt_s),
            "garbage_us": _us(statistics.mean(parts.get(GARBAGE, [0.0]))),  # in few steps, so that the median is none
            "parts_us": {name: _us(statistics.median(seconds)) for name, seconds in parts.items()},
        }  # fmt: skip

    def close(self) -> None:
        self.parts.close()
        self.loop.close()


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 1)


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each number of sequences."""
    made = Table("microseconds of a step", *(f"{one['sequences']} sequences" for one in found), title="medians")
    names = dict.fromkeys(name for one in found for name in one["parts_us"] if name not in (WAIT, GARBAGE))
    for name in sorted(names, key=lambda name: -max(one["parts_us"].get(name, 0.0) for one in found)):
        made.add_row(name, *(f"{one['parts_us'].get(name, 0.0):,.0f}" for one in found))
    made.add_section()
    for key, name in (
        ("host_us", "the host's, all"), ("waited_us", WAIT), ("step_us", "a step"), ("mean_us", "a step, mean"),
        ("worst_us", "the longest step"), ("garbage_us", "garbage collection, mean"), ("prompt_step_us", "prompts, mean"),
    ):  # fmt: skip
        made.add_row(name, *(f"{one[key]:,.0f}" for one in found))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.host", description=__doc__)
    parser.add_argument("--engine", type=Path, help="folder of engine.json, to run on a GPU; by default nothing is computed")
    parser.add_argument("--sequences", type=int, nargs="+", default=[256, 64, 8])
    parser.add_argument("--steps", type=int, default=100, help="of each figure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.engine is None:
            free_manifest(max(options.sequences)).save(Path(folder))
        profiled = Profiled(options.engine or Path(folder), None if options.engine else free_runner)
        profiled.decode(max(options.sequences), 10)
        collections = gc.get_stats()[2]["collections"]
        found = [profiled.decode(count, options.steps) for count in options.sequences]
        full = gc.get_stats()[2]["collections"] - collections
        profiled.close()
    Console().print(table(found))
    print(json.dumps({"engine": str(options.engine or "none"), "full_collections": full, "decode": found}))


if __name__ == "__main__":
    main()
