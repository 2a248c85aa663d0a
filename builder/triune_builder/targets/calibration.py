"""Quantizes with what the float reference tells of the inputs of linears over the calibration texts: bundled, or a user's."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..graph.export import GraphBundle
from ..quantize.apply import Quantized, quantize
from ..quantize.choosing import choose_codes, open_parts
from ..quantize.policy import GPTQ, Precision
from ..quantize.schemes import needs
from ..quantize.statistics import Observe, Statistics, gather
from ..verify.reference import observe_inputs
from ..verify.texts import UserText, further_texts, texts_of, token_ids

_KEPT, _CHOSEN = ".calibration.npz", ".gptq"  # hidden: no part of the engine
_MOST, _WINDOW = 4096, 512  # tokens of a user's texts that are read, all together, and in one piece


def calibrate(
    checkpoint: Checkpoint,
    precision: Precision,
    folder: Path,
    count: Callable[[int, int], None] = lambda done, total: None,
    texts: Sequence[UserText] = (),
) -> Statistics:
    """What the schemes of `precision` need; a file in `folder`, the engine's while it is being made, keeps it.

    Args:
        count: told the weights whose inputs are known, of how many, about.
        texts: what is read in place of the model's own or the bundled calibration texts.
    """

    def run(observe: Observe) -> None:
        _observe(checkpoint, checkpoint.weights, _read(checkpoint, texts), observe, count)

    return gather(needs(precision), run, folder / _KEPT)


def quantize_calibrated(
    bundle: GraphBundle,
    checkpoint: Checkpoint,
    precision: Precision,
    rounding: str,
    folder: Path,
    count: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    texts: Sequence[UserText] = (),
) -> Quantized:
    """The graph of `bundle` in `precision`, with all that the calibration texts are needed for.

    Args:
        rounding: how codes are chosen, see `policy.ROUNDINGS`.
        folder, count, texts: as `calibrate`.
        say: gets a line for the user if there was nothing to choose.
    """
    idle = rounding == GPTQ and not choose_calibrated(bundle, checkpoint, precision, folder, count, texts)
    quantized = quantize(bundle, precision, calibrate(checkpoint, precision, folder, count, texts))
    if idle:
        say(
            f"{'quantize':<10} {GPTQ} chose nothing: all weights of four bits are the checkpoint's own blocks, kept as they are"
        )
    return quantized


def choose_calibrated(
    bundle: GraphBundle,
    checkpoint: Checkpoint,
    precision: Precision,
    folder: Path,
    count: Callable[[int, int], None] = lambda done, total: None,
    texts: Sequence[UserText] = (),
) -> bool:
    """Choose by GPTQ what `open_parts` names, and whether that is anything; for the arguments see `calibrate`."""
    parts = open_parts(bundle, precision)
    if parts:

        def run(weights: Mapping[str, Any], observe: Observe) -> None:
            _observe(checkpoint, weights, _read(checkpoint, texts, further_texts(checkpoint.verification)), observe, count)

        choose_codes(bundle, parts, checkpoint.weights, folder / _CHOSEN, run)
    return bool(parts)


def _read(checkpoint: Checkpoint, texts: Sequence[UserText], further: Sequence[str] = ()) -> list[list[int]]:
    """The tokens of the calibration texts and of `further` ones; or the beginnings of a user's texts, which stand for these."""
    if not texts:
        return token_ids(checkpoint.tokenizer_json, [*texts_of(checkpoint.verification).calibration, *further])
    share = max(1, _MOST // len(texts))
    begun = [ids[:share] for ids in token_ids(checkpoint.tokenizer_json, [text.text for text in texts])]
    return [ids[start : start + _WINDOW] for ids in begun for start in range(0, len(ids), _WINDOW)]


def _observe(
    checkpoint: Checkpoint,
    weights: Mapping[str, Any],
    texts: Sequence[Sequence[int]],
    observe: Observe,
    count: Callable[[int, int], None],
) -> None:
    """Tell of the inputs of every linear over `texts`."""
    total = sum(len(tensor.shape) > 1 for tensor in checkpoint.weights.values())  # experts that no token chooses have none
    numbers = itertools.count(1)

    def counted(name: str, x: NDArray[Any]) -> None:
        observe(name, x)
        count(min(next(numbers), total), total)

    observe_inputs(checkpoint.config, weights, texts, counted)


def forget(folder: Path) -> None:
    """The engine is written: its calibration has done its work."""
    (folder / _KEPT).unlink(missing_ok=True)
    shutil.rmtree(folder / _CHOSEN, ignore_errors=True)
