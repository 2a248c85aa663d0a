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
_COMPARED = 8  # sequences of a batch, spread over it


def sizes_error(manifest: EngineManifest, folder: Path, tokens: Sequence[int]) -> float:
    """The relative difference of logits between an engine and the one that runs a single token, of the worst engine.

    The median of an engine's rows: of a model with experts some row may be near a tie, and a rounding chooses another one.

    Args:
        folder: of the engines.
        tokens: of texts, to be read; from their beginning again where they are too few.
    """
    plan, runner = TensorRtPlan.of(manifest), make_runner(manifest, folder)
    try:
        errors = [_decoded(runner, manifest, profile, tokens) for profile in plan.profiles if profile.name == DECODE]
        errors += [_prefilled(runner, manifest, profile, tokens) for profile in plan.profiles if profile.name == PREFILL]
        return max(map(statistics.median, errors))
    finally:
        runner.close()


def _piece(tokens: Sequence[int], begin: int, count: int) -> list[int]:
    return [tokens[(begin + n) % len(tokens)] for n in range(count)]


def _singles(runner: Runner, tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Logits after each of `tokens`, one run of slot 0 alone for each."""
    return [runner.run([Work(0, start, (token,))])[0].copy() for start, token in enumerate(tokens)]


def _decoded(runner: Runner, manifest: EngineManifest, profile: Profile, tokens: Sequence[int]) -> list[float]:
    """Of a batch of that size, in which sequences have several lengths, twice: queued and recorded."""
    count = min(profile.batch[2], manifest.limits.max_sequences)
    texts = [_piece(tokens, slot * _HELD, _HELD + slot % _LENGTHS + 1) for slot in range(count)]
    compared = sorted({slot * count // min(count, _COMPARED) for slot in range(min(count, _COMPARED))} | {count - 1})
    alone = {slot: _singles(runner, texts[slot])[-1] for slot in compared}
    for slot, text in enumerate(texts):
        runner.run([Work(slot, 0, tuple(text[:-1]))])
    errors = []
    for _ in range(2):
        rows = runner.run([Work(slot, len(text) - 1, (text[-1],)) for slot, text in enumerate(texts)])
        errors += [difference(rows[slot], row) for slot, row in alone.items()]
    return errors


def _prefilled(runner: Runner, manifest: EngineManifest, profile: Profile, tokens: Sequence[int]) -> list[float]:
    """Of prompts of that size, and of some that fill it only in part: all rows that the engine makes."""
    size = min(profile.tokens[2], manifest.limits.max_length - 1)
    alone = _singles(runner, text := _piece(tokens, 0, size))
    errors = []
    for length in sorted({max(1, size - less) for less in (0, 1, 2, size // 2)}):
        drafts = min(profile.logits[2], length) - 1
        rows = runner.run([Work(0, 0, tuple(text[:length]), drafts)])
        errors += [difference(row, same) for row, same in zip(rows, alone[length - 1 - drafts : length], strict=True)]
    return errors
