"""Gathers what a precision must know of the inputs of linears, by the float reference over the bundled calibration texts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..quantize.policy import Precision
from ..quantize.schemes import needs
from ..quantize.statistics import Observe, Statistics, gather
from ..verify.reference import observe_inputs
from ..verify.texts import texts_of, token_ids

_KEPT = ".calibration.npz"


def calibrate(
    checkpoint: Checkpoint, precision: Precision, folder: Path, count: Callable[[int, int], None] = lambda done, total: None
) -> Statistics:
    """What the schemes of `precision` need; a file in `folder`, the engine's while it is being made, keeps it.

    Args:
        count: told the weights whose inputs are known, of how many, about.
    """
    total = sum(len(tensor.shape) > 1 for tensor in checkpoint.weights.values())  # experts that no token chooses have none

    def run(observe: Observe) -> None:
        texts = token_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification).calibration)
        numbers = itertools.count(1)

        def counted(name: str, x: NDArray[Any]) -> None:
            observe(name, x)
            count(min(next(numbers), total), total)

        observe_inputs(checkpoint.config, checkpoint.weights, texts, counted)

    return gather(needs(precision), run, folder / _KEPT)


def forget(folder: Path) -> None:
    """The engine is written: its calibration has done its work."""
    (folder / _KEPT).unlink(missing_ok=True)
