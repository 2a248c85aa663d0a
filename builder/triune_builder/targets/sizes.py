"""What an estimate knows of a checkpoint's weights, and what a target tells of an engine's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..quantize.policy import FLOAT, HEAD, Precision

if TYPE_CHECKING:
    from ..quantize.schemes.scheme import Scheme

Kind = Literal["vector", "table", "head", "router", "expert", "expanded", "linear"]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One tensor of the checkpoint, as far as sizes go."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    nbytes: int  # in the checkpoint, scales included

    @property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


def scheme_of(precision: Precision, name: str, kind: Kind) -> Scheme[Any] | None:
    """What holds a weight that is read as `kind` in an engine of that precision; None: floats."""
    from ..quantize.schemes import find_scheme  # imports what makes codes

    apart = {"table": precision.embedding, "head": precision.scheme(HEAD), "expanded": FLOAT}
    scheme = find_scheme(apart[kind] if kind in apart else precision.scheme(name))
    return scheme.experts if scheme is not None and kind == "expert" else scheme


@dataclass(frozen=True, kw_only=True)
class PrecisionSize:
    """What one precision takes."""

    written: int  # bytes that a build adds to the disk
    in_place: int  # bytes read from the checkpoint's own files, where they are on the same file system
    loaded: int  # bytes of weights in a server's memory
    serving: int  # the same with all KV slots filled
