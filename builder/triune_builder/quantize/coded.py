"""Makes codes of weights when their bytes are written, one weight or expert in memory, and measures what they lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import BuildError, option
from ..graph.rewrite import Rewriter
from ..graph.weights import WeightSource
from .change import Change
from .schemes.scheme import Coded, Codes, Part, Scheme, bands
from .statistics import Array, Statistic

T = TypeVar("T")


class Latest:
    """The value that was made last. A weight's parts are written one after the other: one weight in memory, not a model."""

    def __init__(self) -> None:
        self._held: tuple[object, object] = (None, None)

    def get(self, key: object, make: Callable[[], T]) -> T:
        """What `make` makes, or made for this key if nothing else was made since."""
        if self._held[0] != key:
            self._held = (None, None)  # let go of it before the next one is made
            self._held = key, make()
        return cast(T, self._held[1])


class Weight:
    """A weight, or the equal weights of a stack, on their way into the codes of a scheme.

    Raises:
        BuildError: columns that the scheme cannot hold; when the codes are made, numbers that it cannot.
    """

    def __init__(
        self,
        change: Change,
        scheme: Scheme[Any],
        sources: Sequence[WeightSource],
        observed: Sequence[Mapping[Statistic, Array]],
        latest: Latest,
        *,
        is_stack: bool = False,
    ) -> None:
        """
        Args:
            change: gets the error and the note when the codes are made.
            observed: for each of `sources`, see `Scheme.make`.
            latest: of the whole graph.
        """
        self._rows, self._columns = sources[0].shape
        if self._columns % scheme.unit:
            what = f"the experts of {change.name} have" if is_stack else f"{change.name} has"
            raise BuildError(  # `triune build` says so before, with what can be built
                f"{what} {self._columns} columns, which blocks of {scheme.unit} do not divide",
                f"choose {option('precision', 'fp32')}",
            )
        self._change, self._scheme, self._sources, self._observed = change, scheme, sources, observed
        self._latest, self._is_stack = latest, is_stack
        self._squares = np.full((len(sources), 2), np.nan)  # of the differences and of the weights, once they were made

    def put(self, rewriter: Rewriter) -> Coded:
        """The weight as initializers of the graph."""
        parts = tuple(self._put(rewriter, part) for part in self._scheme.parts(self._rows, self._columns))
        return Coded(self._change.name, parts, any(source.has_blocks for source in self._sources))

    def _put(self, rewriter: Rewriter, part: Part[Any]) -> ir.Value:
        name = f"{self._change.name}.{part.suffix}"
        if self._is_stack:
            shape = (len(self._sources), *part.shape)
            return rewriter.stacked_initializer(name, lambda i: part.take(self._codes(i)), part.dtype, shape)
        return rewriter.initializer(name, lambda: part.take(self._codes(0)), part.dtype, part.shape)

    def _codes(self, i: int) -> Codes:
        def make() -> Codes:
            source = self._sources[i]
            once = _ReadOnce(source.name, source.parts, source.part_names)
            with np.errstate(all="ignore"):  # of numbers that are none: `_measure` refuses them
                codes: Codes = self._scheme.make(once, self._observed[i])
                if np.isnan(self._squares[i, 0]):
                    self._measure(i, once.float32(), codes)
            return codes

        return self._latest.get((self, i), make)

    def _measure(self, i: int, weight: NDArray[np.float32], codes: Codes) -> None:
        """The change's error: the root mean square of the difference over that of the weights, of those made so far."""
        difference = size = 0.0
        for band in bands(len(weight)):
            values = codes.values(band)
            if not np.isfinite(values).all():
                raise BuildError(
                    f"{self._sources[i].name} has numbers that are not finite, or far too large: no codes can be made of them",
                    "fetch the weights again",
                )
            difference += float(np.square(values - weight[band]).sum(dtype=np.float64))
            size += float(np.square(weight[band]).sum(dtype=np.float64))
        self._squares[i] = difference, size
        difference, size = np.nansum(self._squares, 0)
        self._change.error = float(np.sqrt(difference / max(size, 1e-30)))
        self._change.note = codes.note


class _ReadOnce(WeightSource):
    """A weight whose numbers are kept while its codes are made and measured."""

    @cached_property
    def _numbers(self) -> NDArray[np.float32]:
        return super().float32()

    def float32(self) -> NDArray[np.float32]:
        return self._numbers
