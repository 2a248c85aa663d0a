"""Which weight gets which scheme. Pure: a precision is a list of rules, the first that matches a name wins."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..errors import BuildError

Stored = Literal["BF16", "F16", "F8_E4M3"]
FLOAT = "float"  # what a rule says of weights that stay as they are; the schemes' names are in schemes/__init__.py


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Rules over the names of linear weights and of stacks of experts, and the scheme of the embedding table."""

    name: str
    linear: tuple[tuple[str, str], ...]  # pattern, scheme
    embedding: str = FLOAT
    stored: Stored | None = None  # float weights are kept in this form of the checkpoint's; None: written as float32
    scale_bytes: int = 4  # of a scale in the engine

    def scheme(self, weight: str) -> str:
        """The scheme of the linear weight of that name."""
        return next(scheme for pattern, scheme in self.linear if fnmatchcase(weight, pattern))

    @property
    def schemes(self) -> frozenset[str]:
        """Every scheme that a rule names."""
        return frozenset(scheme for _, scheme in self.linear) | {self.embedding}


_ROUTERS = ("*.mlp.gate.weight", FLOAT)  # tiny, and they decide which experts are asked

PRECISIONS = {
    p.name: p
    for p in (
        Precision(name="fp32", linear=(("*", FLOAT),)),
        Precision(name="int8", linear=(_ROUTERS, ("*", "blocks8")), embedding="embedding_blocks8"),
        # The head decides every token and is read once a step: it keeps eight bits.
        Precision(
            name="int4", linear=(_ROUTERS, ("lm_head.weight", "blocks8"), ("*", "blocks4")), embedding="embedding_blocks8"
        ),
        Precision(name="w8a8", linear=(_ROUTERS, ("*", "w8a8")), embedding="embedding_blocks8"),
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
