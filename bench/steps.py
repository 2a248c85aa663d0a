"""python -m bench.steps: what a step costs the host, with a runner that costs nothing. Prints a table and one JSON line."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from triune_runtime.generation.answers import everyone
from triune_runtime.manifest import EngineManifest, Limits
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Best, Immediate, Rows, Work
from triune_runtime.starting import step_loop
from triune_runtime.text.vocabulary import TokenBytes

VOCABULARY = 151_936  # of DeepSeek-R1-Distill-Qwen
STREAMS = (1, 16, 64, 256)
KINDS: dict[str, dict[str, Any]] = {"greedy": {}, "temperature 0.6, top-p 0.95": {"temperature": 0.6, "top_p": 0.95}}


def nobody() -> frozenset[int]:
    """Nothing is handed out."""
    return frozenset()


class Free(Immediate):
    """Gives the same rows again and again, and finds their best tokens."""

    chooses = frozenset({"greedy"})
    vocab_size = VOCABULARY

    def __init__(self, rows: int) -> None:
        # A language model's logits, roughly: a wide bulk, and a few tokens that stand out.
        numbers = np.random.default_rng(1)
        self._logits = numbers.normal(0.0, 2.0, (rows, VOCABULARY)).astype(np.float32)
        peaks = numbers.integers(0, VOCABULARY, (rows, 40))
        np.put_along_axis(self._logits, peaks, numbers.normal(12.0, 2.0, (rows, 40)).astype(np.float32), axis=1)
        best = self._logits.argmax(1)
        self._best = Best(best, self._logits[np.arange(rows), best])

    def run_rows(self, work: Sequence[Work]) -> Rows:
        n = len(work)
        return Rows(self._logits[:n], Best(self._best.tokens[:n], self._best.logits[:n]))

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Nothing is kept."""


def step_seconds(streams: int, params: dict[str, Any], steps: int, *, handed_out: bool) -> float:
    """The median of `steps` steps in which every stream gets a token."""
    table = TokenBytes([b" word"] * VOCABULARY)
    manifest = EngineManifest(
        model="free", architecture="", target="fake", precision="", engine="", vocab_size=VOCABULARY, cache=(),
        stop_token_ids=(), limits=Limits(max_sequences=streams, max_length=100_000, prefill_chunk=streams),
    )  # fmt: skip
    loop = step_loop(manifest, Free(streams), table)
    for key in range(streams):
        loop.submit(Request(key=key, prompt=(key,), params=SamplingParams(max_tokens=90_000, seed=key, **params)))
    wanted = everyone if handed_out else nobody
    while loop.snapshot().decoding < streams:
        loop.step(wanted)
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        loop.step(wanted)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="of each figure; the median is given")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    shown = Table("a step", "streams", "ms", "us a stream", "ms, every piece handed out")
    for kind, params in KINDS.items():
        for streams in options.streams:
            steps = options.steps if not params else max(options.steps // streams, 5)
            quiet, handed_out = (step_seconds(streams, params, steps, handed_out=out) for out in (False, True))
            found.append({"kind": kind, "streams": streams, "ms": quiet * 1e3, "ms_handed_out": handed_out * 1e3})
            shown.add_row(kind, str(streams), f"{quiet * 1e3:.3f}", f"{quiet / streams * 1e6:.2f}", f"{handed_out * 1e3:.3f}")
    Console().print(shown)
    print(json.dumps({"vocabulary": VOCABULARY, "steps": found}))


if __name__ == "__main__":
    main()
