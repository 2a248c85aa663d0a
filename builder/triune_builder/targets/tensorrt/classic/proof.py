"""Runs every engine of a build, whatever size it has, and compares it with the smallest: one was seen to be wrong alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Runner, Work
from triune_runtime.targets import make_runner
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from ....verify.measure import difference
from .run import DECODE, PREFILL

_HELD = 6  # tokens of the shortest sequence of a batch; they are of four lengths, so that it is ragged
_LENGTHS = 4


def sizes_error(manifest: EngineManifest, folder: Path) -> float:
    """The relative difference of logits between an engine and the one that runs a single token, of the worst engine.

    The median of an engine's rows: of a model with experts some row may be near a tie, and a rounding chooses another one.

    Args:
        folder: of the engines.
    """
    plan, runner = TensorRtPlan.of(manifest), make_runner(manifest, folder)
    try:
        tokens = [int(t) for t in np.random.default_rng(7).integers(0, manifest.vocab_size, manifest.limits.max_length)]
        errors = [_decoded(runner, manifest, profile, tokens) for profile in plan.profiles if profile.name == DECODE]
        errors += [_prefilled(runner, profile, tokens) for profile in plan.profiles if profile.name == PREFILL]
        return max(map(statistics.median, errors))
    finally:
        runner.close()


def _single(runner: Runner, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Logits after `tokens`, one run of slot 0 alone for each."""
    for start, token in enumerate(tokens):
        row = runner.run([Work(0, start, (token,))])
    return row[0]  # type: ignore[no-any-return]  # of its first row


def _decoded(runner: Runner, manifest: EngineManifest, profile: Profile, tokens: Sequence[int]) -> list[float]:
    """Of a batch of that size, in which sequences have several lengths, twice: queued and recorded."""
    count = min(profile.batch[2], manifest.limits.max_sequences)
    texts = [tokens[: _HELD + slot % _LENGTHS] for slot in range(count)]
    alone = [_single(runner, tokens[: _HELD + length + 1]) for length in range(min(count, _LENGTHS))]
    for slot, text in enumerate(texts):
        runner.run([Work(slot, 0, tuple(text))])
    errors = []
    for _ in range(2):
        rows = runner.run([Work(slot, len(text), (tokens[len(text)],)) for slot, text in enumerate(texts)])
        errors += [difference(row, alone[slot % _LENGTHS]) for slot, row in enumerate(rows)]
    return errors


def _prefilled(runner: Runner, profile: Profile, tokens: Sequence[int]) -> list[float]:
    """Of prompts of that size, and of some that fill it only in part."""
    size = min(profile.tokens[2], len(tokens) - 1)
    errors = []
    for length in sorted({max(1, size - less) for less in (0, 1, 2, size // 2)}):
        row = runner.run([Work(0, 0, tuple(tokens[:length]))])[0]
        errors.append(difference(row, _single(runner, tokens[:length])))
    return errors
