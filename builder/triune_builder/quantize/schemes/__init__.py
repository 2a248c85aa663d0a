"""The schemes, by the names that precisions' rules have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import BuildError
from ..policy import FLOAT, Precision
from ..statistics import Statistic
from .blocks import Blocks, EmbeddingBlocks
from .fp8 import Fp8
from .rows import Rows
from .scheme import Scheme

SCHEMES: Mapping[str, Scheme[Any]] = {
    "blocks4": Blocks(bits=4),
    "blocks4_symmetric": Blocks(bits=4, symmetric=True),
    "blocks8": Blocks(bits=8),
    "blocks8_symmetric": Blocks(bits=8, symmetric=True),
    "embedding_blocks8": EmbeddingBlocks(),
    "fp8": Fp8(),
    "w8a8": Rows(),
}


def find_scheme(name: str) -> Scheme[Any] | None:
    """The scheme of that name; None for weights that stay floats.

    Raises:
        BuildError: there is none.
    """
    if name == FLOAT:
        return None
    if name not in SCHEMES:
        known = ", ".join((FLOAT, *SCHEMES))
        raise BuildError(f"no scheme {name!r}; known: {known}", "name it in quantize/schemes/__init__.py")
    return SCHEMES[name]


def needs(precision: Precision) -> frozenset[Statistic]:
    """What `precision` must know of the inputs of linears.

    Raises:
        BuildError: one of its rules names no scheme.
    """
    schemes = (find_scheme(name) for name in precision.schemes)
    return frozenset(statistic for scheme in schemes if scheme for statistic in scheme.needs)
