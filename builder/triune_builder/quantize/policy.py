"""Which weight gets which scheme. Pure: a precision is a list of rules, the first that matches a name wins."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..errors import BuildError

Scheme = Literal["float", "blocks4", "blocks4_symmetric", "blocks8", "w8a8"]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Rules over the names of linear weights, the scheme of the embedding table, and whether to smooth activations."""

    name: str
    linear: tuple[tuple[str, Scheme], ...]
    embedding: Literal["float", "blocks8"]
    smooth: bool = False

    def scheme(self, weight: str) -> Scheme:
        """The scheme of the linear weight of that name."""
        return next(scheme for pattern, scheme in self.linear if fnmatchcase(weight, pattern))


PRECISIONS = {
    p.name: p
    for p in (
        Precision(name="fp32", linear=(("*", "float"),), embedding="float"),
        Precision(name="int8", linear=(("*", "blocks8"),), embedding="blocks8"),
        # The head decides every token and is read once a step: it keeps eight bits.
        Precision(name="int4", linear=(("lm_head.weight", "blocks8"), ("*", "blocks4")), embedding="blocks8"),
        Precision(name="w8a8", linear=(("*", "w8a8"),), embedding="blocks8", smooth=True),
    )
}


def find_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in PRECISIONS:
        raise BuildError(f"no precision {name!r}; known: {', '.join(PRECISIONS)}", "choose one with PRECISION=...")
    return PRECISIONS[name]
