"""What a scheme is: how weights become codes, and how the graph reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.rewrite import Rewriter
from ...graph.weights import WeightSource
from ..statistics import Array, Statistic

_BAND = 4096  # rows
TINY = np.float32(1e-30)  # least scale, of a row of zeros


class Codes(Protocol):
    """A weight [rows, columns] in codes."""

    @property
    def note(self) -> str:
        """What the build's report says of it."""
        ...

    def values(self, rows: slice = ...) -> NDArray[np.float32]:
        """The numbers that the codes stand for."""
        ...


C = TypeVar("C")


@dataclass(frozen=True)
class Part(Generic[C]):
    """One tensor of a weight in codes."""

    suffix: str  # of its name
    dtype: ir.DataType
    shape: tuple[int, ...]
    take: Callable[[C], NDArray[Any]]


class Coded(NamedTuple):
    """A weight of the graph, or a stack of them for experts, in codes that are made when its bytes are written."""

    name: str
    parts: tuple[ir.Value, ...]  # in the scheme's order; of a stack each has a leading axis
    has_blocks: bool  # the checkpoint itself holds quantized blocks


class Scheme(Protocol[C]):
    """One way to hold weights in fewer bits."""

    @property
    def name(self) -> str:
        """As the build's report says it."""
        ...

    @property
    def needs(self) -> frozenset[Statistic]:
        """What must be known of the inputs of its linears."""
        ...

    @property
    def unit(self) -> int:
        """Columns of a weight must be a multiple of it."""
        ...

    @property
    def experts(self) -> Scheme[Any] | None:
        """What holds stacks of experts' weights where this one holds linears; None: it is none for linears."""
        ...

    def bytes(self, rows: int, columns: int, scale_bytes: int = 4) -> int:
        """What a target writes of a weight that was floats.

        Args:
            scale_bytes: of one scale: 4, or 2 where the target keeps floats as halves.
        """
        ...

    def parts(self, rows: int, columns: int) -> Sequence[Part[C]]:
        """The tensors that the graph reads."""
        ...

    def make(self, source: WeightSource, observed: Mapping[Statistic, Array]) -> C:
        """The codes of one weight.

        Args:
            observed: of what the scheme needs, that which is known of this weight's input; of an expert that no calibration
                text chose, nothing.
        """
        ...

    def rewrite(self, rewriter: Rewriter, node: ir.Node, weights: Sequence[Coded]) -> None:
        """Let `node` read its weight in codes: a Linear or a Gather one, an Experts those of gate and up, and down."""
        ...


def bands(rows: int) -> Iterator[slice]:
    """Slices of at most `_BAND` rows: a vocabulary's table is worked through without several copies of it."""
    return (slice(start, min(start + _BAND, rows)) for start in range(0, rows, _BAND))
