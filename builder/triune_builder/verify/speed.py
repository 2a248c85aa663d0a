"""How fast a runner is, and whether it says the same when a step is run again. Judges nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from triune_runtime.manifest import Limits
from triune_runtime.runner import Runner, Work

from .measure import difference, prefill

_DECODED = 64  # tokens of each sequence, of which a first few are not counted
_WARM_UP = 8
_CONTEXT = 512  # tokens in each slot before, at most
_PREFILLS = 5


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Medians of steps, seen from the caller: copies to and from the device included."""

    decode_ms: dict[int, float]  # sequences -> milliseconds of a step
    prefill_ms: float  # of a whole chunk
    prefill_tokens: int

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for count, ms in self.decode_ms.items():
            yield f"decode, {count} sequences: {ms:.3f} ms a step, {count / ms * 1e3:,.0f} tokens/s"
        rate = self.prefill_tokens / self.prefill_ms * 1e3
        yield f"prefill, {self.prefill_tokens} tokens: {self.prefill_ms:.2f} ms, {rate:,.0f} tokens/s"


def measure_speeds(runner: Runner, limits: Limits, vocab_size: int) -> Speeds:
    """Decode 1, 8 and as many sequences as there are slots, behind half of a slot or 512 tokens; prefill whole chunks."""
    counts = sorted({1, min(8, limits.max_sequences), limits.max_sequences})
    return Speeds(
        decode_ms={count: _decode_ms(runner, limits, vocab_size, count) for count in counts},
        prefill_ms=_prefill_ms(runner, limits, vocab_size),
        prefill_tokens=_chunk(limits),
    )


def replay_error(runner: Runner, limits: Limits, vocab_size: int) -> float:
    """Largest relative difference between runs of one and the same step, for every batch size; 0.0: the same bits.

    A runner may record a step and replay it: the first run of a batch size is the step itself, the third a replay.
    """
    worst, start = 0.0, min(4, limits.max_length - 1)
    _fill(runner, limits, vocab_size, limits.max_sequences, start)
    for count in range(1, limits.max_sequences + 1):
        work = [Work(slot, start, _tokens(1, vocab_size)) for slot in range(count)]
        first = runner.run(work).copy()
        for _ in range(2):
            again = runner.run(work)
            worst = max(worst, *(difference(a, b) for a, b in zip(again, first, strict=True)))
    return worst


def _decode_ms(runner: Runner, limits: Limits, vocab_size: int, count: int) -> float:
    start = min(limits.max_length // 2, _CONTEXT)
    steps = min(_DECODED, limits.max_length - start)
    _fill(runner, limits, vocab_size, count, start)
    tokens = _tokens(count, vocab_size)

    def step(number: int) -> None:
        runner.run([Work(slot, start + number, (token,)) for slot, token in enumerate(tokens)])

    seconds = [_seconds(lambda number=number: step(number)) for number in range(steps)]  # type: ignore[misc]
    return statistics.median(seconds[min(_WARM_UP, steps - 1) :]) * 1e3


def _fill(runner: Runner, limits: Limits, vocab_size: int, count: int, length: int) -> None:
    """Read `length` tokens into each of the first `count` slots."""
    for slot in range(count):
        prefill(runner, slot, _tokens(length, vocab_size), limits.prefill_chunk)


def _prefill_ms(runner: Runner, limits: Limits, vocab_size: int) -> float:
    tokens = _tokens(_chunk(limits), vocab_size)
    seconds = [_seconds(lambda: runner.run([Work(0, 0, tokens)])) for _ in range(1 + _PREFILLS)]
    return statistics.median(seconds[1:]) * 1e3


def _chunk(limits: Limits) -> int:
    return min(limits.prefill_chunk, limits.max_length)


def _seconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def _tokens(count: int, vocab_size: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(7).integers(0, vocab_size, count).tolist())
