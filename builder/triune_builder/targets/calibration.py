"""Gathers what a precision must know of the inputs of linears, by the float reference over the bundled calibration texts."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import Checkpoint
from ..quantize.policy import Precision
from ..quantize.schemes import needs
from ..quantize.statistics import Observe, Statistics, gather
from ..verify.reference import observe_inputs
from ..verify.texts import texts_of, token_ids

_KEPT = ".calibration.npz"


def calibrate(checkpoint: Checkpoint, precision: Precision, folder: Path) -> Statistics:
    """What the schemes of `precision` need; a file in `folder`, the engine's while it is being made, keeps it."""

    def run(observe: Observe) -> None:
        texts = token_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification).calibration)
        observe_inputs(checkpoint.config, checkpoint.weights, texts, observe)

    return gather(needs(precision), run, folder / _KEPT)


def forget(folder: Path) -> None:
    """The engine is written: its calibration has done its work."""
    (folder / _KEPT).unlink(missing_ok=True)
