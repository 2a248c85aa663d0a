"""What can be declared of a name that requests carry. Plain values; the table of them is `declared.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from ..constraints.guide import Guide
from .values import Reader, Value


@dataclass(frozen=True)
class Name:
    """A name that a request may carry, as a tensor or, as all may, in JSON and among request parameters."""

    name: str
    tensor: str  # its type in the models' configs; "": no tensor
    _: KW_ONLY
    dims: tuple[int, ...] = (1,)  # of the tensor; models whose tensors have rows have one more in front
    rows_only: bool = False  # of the ensembles, those whose tensors have rows have it
    inner: bool = False  # the tokenize models have it, under a name that no client sends
    openai: bool = False  # the OpenAI-compatible API has a field of this name
    client: bool = False  # `triune_client` has an option of this name, or of the field's


@dataclass(frozen=True)
class Option(Name):
    """It sets something: a field of `SamplingParams` or `Options`, or what `parsing.py` makes of it with others."""

    reader: Reader
    says: str
    _: KW_ONLY
    default: Any = None  # of the field; None: it may be absent
    field: str | None = ""  # that it sets; "": the one of its name; None: `parsing.py` decides what it sets
    sampling: bool = False  # the field is one of `SamplingParams`, otherwise of `Options`
    travels: Reader | None = None  # reads the field, where the field is not what clients send

    @property
    def sets(self) -> str | None:
        """The field that it sets."""
        return self.name if self.field == "" else self.field


@dataclass(frozen=True)
class Alias(Name):
    """Another name of an option. Two names of one option must agree."""

    of: str
    _: KW_ONLY
    reader: Reader | None = None  # where it is read otherwise


@dataclass(frozen=True)
class Prescribes(Name):
    """It says what the answer must look like."""

    guide: Callable[[str, Value], Guide | None]
    says: str


@dataclass(frozen=True)
class Only(Name):
    """Served with these values only; every other is refused by name."""

    allowed: tuple[Any, ...]


@dataclass(frozen=True)
class Refused(Name):
    """Known to clients, and refused by name."""


@dataclass(frozen=True)
class Elsewhere(Name):
    """A tensor that is read with the prompt, or not at all."""

    says: str


@dataclass(frozen=True)
class Field:
    """A value that travels from tokenize to generate, as JSON."""

    name: str
    reader: Reader
    default: Any  # None: it may be absent
    says: str
    sampling: bool = False  # of `SamplingParams`, otherwise of `Options`
