"""Which weight gets which scheme. Pure: a precision is a list of rules, the first that matches a name wins."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

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


NEAREST, GPTQ = "nearest", "gptq"
ROUNDINGS = (NEAREST, GPTQ)  # how codes are chosen where a precision allows for both
BY_GPTQ = {"blocks4": False, "blocks4_symmetric": True}  # schemes of which GPTQ chooses codes -> whether they are symmetric
OBSERVED = frozenset({"w8a8"})  # schemes that must know of the inputs over the calibration texts: `Scheme.needs`
HEAD = "lm_head.weight"  # its name as a linear, tied to the embedding table or not
ROUTERS = ("*.mlp.gate.weight", FLOAT)  # tiny, and they decide which experts are asked
