"""A workload with every kind of run, and what a runner must say to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_builder.targets.tensorrt.network_runner import NetworkRunner
from triune_builder.verify.reference import score
from triune_runtime.manifest import Limits
from triune_runtime.runner import Runner, Work

Array = NDArray[np.float32]
LIMITS = Limits(max_sequences=3, max_length=40, prefill_chunk=16)
TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 40))
STEPS = [
    [Work(0, 0, TOKENS[:16])],
    [Work(0, 16, TOKENS[16:20]), Work(1, 0, TOKENS[5:12])],  # the rest of a prompt, and another one
    [Work(0, 20, TOKENS[20:21]), Work(1, 7, TOKENS[12:13]), Work(2, 0, TOKENS[:9])],  # decoding beside a prompt
    [Work(2, 9, TOKENS[9:16]), Work(0, 21, TOKENS[21:22]), Work(1, 8, TOKENS[13:14])],
    [Work(1, 9, TOKENS[14:15]), Work(0, 22, TOKENS[22:23]), Work(2, 16, TOKENS[16:17])],  # a ragged batch ...
    [Work(1, 10, TOKENS[15:16]), Work(0, 23, TOKENS[23:24]), Work(2, 17, TOKENS[17:18])],  # ... recorded
    [Work(1, 11, TOKENS[16:17]), Work(0, 24, TOKENS[24:25]), Work(2, 18, TOKENS[18:19])],  # ... replayed
    [Work(0, 25, TOKENS[30:34], drafts=3), Work(2, 19, TOKENS[19:21], drafts=1)],
    [Work(0, 27, TOKENS[35:36]), Work(1, 12, TOKENS[17:18])],  # two drafts taken back
]
MOVED = 27  # tokens of slot 0 that are then copied to slot 1


Expected = Callable[[tuple[int, ...], int], Array]
"""(all tokens of a sequence, how many of the last) -> logits after each of these."""


def by_reference(checkpoint: Any) -> Expected:
    """The float reference on the checkpoint's weights."""

    def expected(tokens: tuple[int, ...], count: int) -> Array:
        positions = range(len(tokens) - count, len(tokens))
        return np.concatenate([block.logits for block in score(checkpoint.config, checkpoint.weights, [tokens], [positions])])

    return expected


def by_network(network: NetworkRunner) -> Expected:
    """The network that TensorRT parsed, computed in NumPy with every value rounded as declared: quantized as the engine is."""

    def expected(tokens: tuple[int, ...], count: int) -> Array:
        network.forget(0, 1)
        rows = []
        for start in range(0, len(tokens), LIMITS.prefill_chunk):
            chunk = list(tokens[start : start + LIMITS.prefill_chunk])
            rows.append(network.run(0, [chunk], [start], list(range(len(chunk))))[0])
        return np.concatenate(rows)[len(tokens) - count :]

    return expected


def assert_computes(runner: Runner, expected: Expected, tolerance: float) -> None:
    """Run the workload; every row must be as expected, to `tolerance` of its largest logit."""
    history: dict[int, tuple[int, ...]] = dict.fromkeys(range(LIMITS.max_sequences), ())

    def check(item: Work, rows: Array) -> None:
        history[item.slot] = (*history[item.slot][: item.start], *item.tokens)
        wanted = expected(history[item.slot], 1 + item.drafts)
        assert np.abs(rows - wanted).max() / np.abs(wanted).max() < tolerance, item

    for work in STEPS:
        logits = iter(runner.run(work))
        for item in work:
            check(item, np.stack([next(logits) for _ in range(1 + item.drafts)]))
    runner.copy_slot(0, 1, MOVED)
    history[1] = history[0][:MOVED]
    last = Work(1, MOVED, TOKENS[5:6])
    check(last, runner.run([last]))
