"""Which weight gets which scheme. Pure: a precision is a list of rules, the first that matches a name wins."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Scheme = Literal["float", "blocks4", "blocks4_symmetric", "blocks8", "blocks8_symmetric", "w8a8"]
Stored = Literal["BF16", "F16", "F8_E4M3"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Rules over the names of linear weights, the scheme of the embedding table, and whether to smooth activations."""

    name: str
    linear: tuple[tuple[str, Scheme], ...]
    embedding: Literal["float", "blocks8"]
    smooth: bool = False
    stored: Stored | None = None  # float weights are kept in this form of the checkpoint's; None: written as float32

    def scheme(self, weight: str) -> Scheme:
        """The scheme of the linear weight of that name."""
        return next(scheme for pattern, scheme in self.linear if fnmatchcase(weight, pattern))


ROUTERS: tuple[str, Scheme] = ("*.mlp.gate.weight", "float")  # tiny, and they decide which experts are asked
