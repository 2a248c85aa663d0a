"""What schemes must know of the inputs of linears, and how it is gathered: in one run over the calibration texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Observe = Callable[[str, NDArray[Any]], None]  # told a weight's name and its input x [tokens, in]


@dataclass(frozen=True)
class Statistic:
    """Something that is measured of the inputs of every linear."""

    name: str
    measure: Callable[[Array], Array]  # of x [tokens, in]


def _maxima(x: Array) -> Array:
    return np.asarray(np.abs(x).max(0), np.float64)


MAXIMA = Statistic("maxima", _maxima)  # largest |x_j|, [in]; the linears of a scheme that needs it are smoothed
Statistics = Mapping[Statistic, Mapping[str, Array]]  # -> weight's name in the checkpoint ("lm_head.weight": the head) -> array


def gather(needs: frozenset[Statistic], run: Callable[[Observe], None], kept: Path) -> Statistics:
    """Measure what is needed, if anything is; minutes of work, which the file `kept` (.npz) keeps.

    Args:
        run: computes the model over the calibration texts and tells of every linear once.
    """
    found: dict[Statistic, dict[str, Array]] = {statistic: {} for statistic in needs}
    if not needs:
        return found
    if kept.exists():
        with np.load(kept) as arrays:
            for statistic in needs:
                prefix = f"{statistic.name}/"
                found[statistic] = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
        return found

    def observe(name: str, x: NDArray[Any]) -> None:
        for statistic, arrays in found.items():
            arrays[name] = statistic.measure(x)

    run(observe)
    beside = kept.with_suffix(".tmp.npz")
    np.savez(beside, **{f"{s.name}/{name}": array for s, arrays in found.items() for name, array in arrays.items()})
    beside.replace(kept)
    return found
