"""python -m bench.delivery: many streams through the worker's threads, from a runner that gives tokens at a fixed rate.

Says how late the steps begin because of delivering, how many pieces go out, and how long a token waits for its client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.outbox import Item, Pace
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runner import Best, Immediate, Rows, Work
from triune_runtime.starting import step_loop
from triune_runtime.text.vocabulary import TokenBytes
from triune_runtime.worker import Worker

VOCABULARY = 1000


class Metronome(Immediate):
    """Gives a token to everybody at every tick, and notes how late it is asked for the next one."""

    chooses = frozenset({"greedy"})
    vocab_size = VOCABULARY

    def __init__(self, rate: float, streams: int) -> None:
        self.late_s: list[float] = []
        self.ticks: list[float] = []
        self._period, self._streams = 1 / rate, streams
        self._next: float | None = None
        self._logits: NDArray[np.float32] = np.zeros((streams, VOCABULARY), np.float32)
        self._best = Best(np.full(streams, 7), np.ones(streams, np.float32))

    def run_rows(self, work: Sequence[Work]) -> Rows:
        n = len(work)
        if n == self._streams:
            now = time.perf_counter()
            due = now if self._next is None else self._next
            self.late_s.append(max(now - due, 0.0))
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            self.ticks.append(time.perf_counter())
            self._next = max(due, now) + self._period
        return Rows(self._logits[:n], Best(self._best.tokens[:n], self._best.logits[:n]))

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Nothing is kept."""


def measure(streams: int, rate: float, seconds: float, chunks_per_s: float) -> dict[str, float]:
    """Serve `streams` answers of `rate` tokens a second each."""
    tokens = int(rate * seconds)
    manifest = EngineManifest(
        model="metronome", architecture="", target="fake", precision="", engine="", vocab_size=VOCABULARY, cache=(),
        stop_token_ids=(), limits=Limits(max_sequences=streams, max_length=tokens + 8, prefill_chunk=streams),
    )  # fmt: skip
    runner = Metronome(rate, streams)
    worker = Worker(step_loop(manifest, runner, TokenBytes([b" word"] * VOCABULARY)), Pace(max_chunks_per_s=chunks_per_s))
    pieces, waited, left = 0, list[float](), threading.Semaphore(0)

    def sink(item: Item) -> None:
        nonlocal pieces
        assert isinstance(item, Chunk), item
        pieces += 1
        if runner.ticks:
            waited.append(time.perf_counter() - runner.ticks[-1])
        if item.finish_reason:
            left.release()

    began, used = time.perf_counter(), time.process_time()
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    for key in range(streams):
        worker.submit(Request(key=key, prompt=(3,), params=params), sink)
    for _ in range(streams):
        left.acquire()
    took, used = time.perf_counter() - began, time.process_time() - used
    worker.close()
    return {
        "pieces_per_s": pieces / took,
        "step_late_ms_p50": statistics.median(runner.late_s) * 1e3,
        "step_late_ms_p99": float(np.percentile(runner.late_s, 99)) * 1e3,
        "piece_after_step_ms_p50": statistics.median(waited) * 1e3,
        "piece_after_step_ms_p99": float(np.percentile(waited, 99)) * 1e3,
        "processors": used / took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rate", type=float, default=40.0, help="tokens a second of each stream")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--chunks-per-s", type=float, nargs="+", default=[75.0, 2560.0, 20_000.0])
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for pace in options.chunks_per_s:
        found.append({"chunks_per_s": pace} | measure(options.streams, options.rate, options.seconds, pace))
        print("  ".join(f"{name} {value:,.2f}" for name, value in found[-1].items()))
    print(json.dumps({"streams": options.streams, "rate": options.rate, "runs": found}))


if __name__ == "__main__":
    main()
