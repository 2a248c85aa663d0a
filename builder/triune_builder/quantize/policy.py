"""Which weight gets which scheme. Pure: a precision is a list of rules, the first that matches a name wins."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..errors import BuildError

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


_ROUTERS: tuple[str, Scheme] = ("*.mlp.gate.weight", "float")  # tiny, and they decide which experts are asked

PRECISIONS = {
    p.name: p
    for p in (
        Precision(name="fp32", linear=(("*", "float"),), embedding="float"),
        Precision(name="int8", linear=(_ROUTERS, ("*", "blocks8")), embedding="blocks8"),
        # The head decides every token and is read once a step: it keeps eight bits.
        Precision(name="int4", linear=(_ROUTERS, ("lm_head.weight", "blocks8"), ("*", "blocks4")), embedding="blocks8"),
        Precision(name="w8a8", linear=(_ROUTERS, ("*", "w8a8")), embedding="blocks8", smooth=True),
    )
}
_FORMS: dict[str, Stored] = {"bf16": "BF16", "fp16": "F16", "fp8": "F8_E4M3"}
# Nothing is quantized here: these say how float weights are stored. The engine computes with float32 all the same.
STORED = {name: dataclasses.replace(PRECISIONS["fp32"], name=name, stored=form) for name, form in _FORMS.items()}


def find_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        BuildError: there is none.
    """
    known = PRECISIONS | STORED
    if name not in known:
        raise BuildError(f"no precision {name!r}; known: {', '.join(known)}", "choose one with PRECISION=...")
    return known[name]
