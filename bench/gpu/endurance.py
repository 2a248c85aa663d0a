"""A mixed load at the limit of the memory, for minutes: what grows, what is lost, who is not answered.

Prints a line of JSON every few seconds, and a verdict last; exits with 1 if something is wrong. To be read while it runs:

    setsid python -m bench.gpu.endurance ENGINE --blocks 400 > endurance.log 2>&1 &
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from triune_runtime.errors import TriuneError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import EngineManifest
from triune_runtime.request import Event
from triune_runtime.runner import Runner
from triune_runtime.starting import step_loop
from triune_runtime.targets import make_runner
from triune_runtime.text.vocabulary import TokenBytes

from .mixture import MOST_COPIES, Coming, Mixture

_MIB = 1 << 20
_DRAIN_S = 120.0  # the last answers' time
_GPU_MIB, _RSS_MIB = 4, 96  # of growth that are no growth: what a library rounds up; what Python keeps


class Endurance:
    """A loop under load, and what is seen of it."""

    def __init__(
        self, loop: StepLoop, mixture: Mixture, memory: Callable[[], float], say: Callable[[dict[str, Any]], None]
    ) -> None:
        """
        Args:
            memory: MiB of the device that are in use.
        """
        self._loop, self._mixture, self._memory, self._say = loop, mixture, memory, say
        self._open: dict[int, float] = {}  # by key: when its client leaves; infinity: never
        self._counts = Counter(dict.fromkeys(("sent", "answered", "aborted", "refused", "tokens"), 0))
        self._peak = 0
        self._process = psutil.Process()
        self.failures: list[str] = []

    def run(self, seconds: float, every_s: float = 5.0) -> dict[str, Any]:
        """Load it for so long, let it end, and say what was wrong with it."""
        before, lines = self.fill(), list[dict[str, Any]]()
        began = said_at = time.monotonic()
        # More than can be held: somebody always waits for memory.
        crowd = min(self._loop.limits.max_sequences * 2, self._loop.limits.max_sequences + self._loop.limits.max_queue // 2)
        counted, self._peak = self._counts["tokens"], 0
        while (now := time.monotonic()) - began < seconds:
            while len(self._open) < crowd and self._loop.scheduler.queued + MOST_COPIES <= self._loop.limits.max_queue:
                self._submit(self._mixture.next(), now)
            self._step(now)
            if now - said_at >= every_s:
                rate = (self._counts["tokens"] - counted) / (now - said_at)
                lines.append(self._line(now - began, rate))
                self._say(lines[-1])
                counted, said_at = self._counts["tokens"], now
        self._end()
        self._check_back("all have ended")
        after = self.fill()
        if after != before:
            self.failures.append(f"{before} blocks could be filled at the beginning, {after} at the end")
        self._loop.scheduler.store.forget()
        self._check_back("nothing is kept")
        self._check_growth(lines)
        return {
            "failures": self.failures,
            "filled": [before, after],
            **self._line(time.monotonic() - began, None),
            "lines": len(lines),
        }

    def fill(self) -> int:
        """Blocks that are in use at once when requests need all of them."""
        kv = self._loop.snapshot().kv
        self._peak = 0
        for request in self._mixture.full(kv.blocks, kv.block_tokens, self._loop.scheduler.store.slots):
            self._submit(Coming((request,)), time.monotonic())
        self._end()
        return self._peak

    def _submit(self, coming: Coming, now: float) -> None:
        self._counts["sent"] += len(coming.requests)
        try:
            self._loop.submit_group(coming.requests)
        except TriuneError as error:
            self._counts["refused"] += len(coming.requests)
            if not coming.refused:
                self.failures.append(f"refused: {error}")
            return
        if coming.refused:
            self.failures.append("a prompt that is too long was taken in")
        for request in coming.requests:
            self._open[request.key] = now + (float("inf") if coming.leaves_after_s is None else coming.leaves_after_s)

    def _step(self, now: float) -> None:
        for key in [key for key, at in self._open.items() if at <= now]:
            self._take(self._loop.abort(key))
        self._take(self._loop.step())
        self._peak = max(self._peak, self._loop.snapshot().kv.used)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event.item, TriuneError):
                self.failures.append(f"request {event.key} failed: {event.item}")
            else:
                self._counts["tokens"] += event.item.new_tokens
            if event.last:
                if self._open.pop(event.key, None) is None:
                    self.failures.append(f"request {event.key} was answered twice")
                cancelled = not isinstance(event.item, TriuneError) and event.item.finish_reason == "cancelled"
                self._counts["aborted" if cancelled else "answered"] += 1

    def _end(self) -> None:
        """Take nothing more in, and wait for the answers."""
        until = time.monotonic() + _DRAIN_S
        while self._loop.has_work and (now := time.monotonic()) < until:
            self._step(now)
        if self._open:
            self.failures.append(f"{len(self._open)} requests were never answered, among them {list(self._open)[:5]}")
            self._open.clear()

    def _check_back(self, when: str) -> None:
        store = self._loop.scheduler.store
        if store.usage().used:
            self.failures.append(f"{store.usage().used} blocks are held when {when}")
        try:
            store.check([])
        except AssertionError as error:
            self.failures.append(f"the store's books, when {when}: {error}")

    def _check_growth(self, lines: Sequence[dict[str, Any]]) -> None:
        """What is in use in the last fifth, beside the second one: everything was met by then."""
        fifth = len(lines) // 5
        if not fifth:
            return
        for name, limit in (("gpu_mib", _GPU_MIB), ("rss_mib", _RSS_MIB)):
            then, now = (statistics.median(line[name] for line in part) for part in (lines[fifth : 2 * fifth], lines[-fifth:]))
            if now - then > limit:
                self.failures.append(f"{name} grew from {then:,.0f} to {now:,.0f}")

    def _line(self, at: float, tokens_per_s: float | None) -> dict[str, Any]:
        seen = self._loop.snapshot()
        told = {
            "s": round(at, 1), "blocks": seen.kv.blocks, "used": seen.kv.used, "peak": self._peak, "decoding": seen.decoding,
            "prefilling": seen.prefilling, "waiting": seen.waiting, "gpu_mib": round(self._memory(), 1),
            "rss_mib": round(self._process.memory_info().rss / _MIB, 1), "open": len(self._open), **self._counts,
        }  # fmt: skip
        return told | ({} if tokens_per_s is None else {"tokens_per_s": round(tokens_per_s)})


def load(folder: Path, blocks: int | None) -> tuple[EngineManifest, Runner, Callable[[], float]]:
    """The engine in `folder`, and what says how many MiB of its device are in use.

    Args:
        blocks: of KV memory, on a GPU; None: as many as fit.
    """
    manifest = EngineManifest.load(folder)
    if manifest.target != "cuda":
        return manifest, make_runner(manifest, folder), lambda: 0.0
    from triune_runtime.targets.cuda.loading import cuda_runner

    runner = cuda_runner(manifest, folder, blocks=blocks)

    def used() -> float:
        free, total = runner.memory()
        return (total - free) / _MIB

    return manifest, runner, used


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.endurance", description=__doc__)
    parser.add_argument("engine", type=Path, help="folder of engine.json")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between lines")
    parser.add_argument("--blocks", type=int, help="of KV memory, on a GPU; by default a sixth of what all sequences can fill")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    limits, plan = (manifest := EngineManifest.load(options.engine)).limits, manifest.plan
    size = int(plan.get("block_tokens", limits.max_length))
    blocks = options.blocks or max(limits.max_sequences * limits.max_length // size // 6, 1)
    manifest, runner, memory = load(options.engine, blocks)
    loop = step_loop(manifest, runner, TokenBytes([b" a"] * manifest.vocab_size))
    loop.start()
    mixture = Mixture(manifest, longest=min(limits.max_length, 4096))
    verdict = Endurance(loop, mixture, memory, _print).run(options.minutes * 60, options.every)
    loop.close()
    _print({"verdict": "failed" if verdict["failures"] else "passed", **verdict})
    sys.exit(bool(verdict["failures"]))


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
