"""What is to be compared, checked before anything is built: precisions, texts, how often speeds are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from triune_runtime import targets as runtime

from ..errors import BuildError, printable
from ..plan import BuildPlan, calibrates, plan_of
from ..quantize.policy import FLOAT, GPTQ, NEAREST
from ..targets import every_target, find_target
from ..targets.target import Target
from ..verify.texts import UserText, read_user_text

_BY_GPTQ = f"-{GPTQ}"  # a precision whose codes are chosen by it
_MOST_ROUNDS, _MOST_PROBLEMS = 100, 10_000


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A precision, and how its codes are chosen."""

    precision: str
    rounding: str = NEAREST

    @property
    def name(self) -> str:
        return self.precision if self.rounding == NEAREST else f"{self.precision}-{self.rounding}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One comparison of one model."""

    model: str
    variants: tuple[Variant, ...]
    chosen: Mapping[str, Any] = field(default_factory=dict)  # further options of `triune build`, by their names
    calibration: tuple[UserText, ...] = ()  # of the variants that calibrate
    texts: tuple[UserText, ...] = ()  # read beside the evaluation texts
    problems: int = 0  # of each kind that the model has problems of
    rounds: int = 3

    def plan(self, variant: Variant) -> BuildPlan:
        """What is built of one of the variants.

        Raises:
            BuildError: the target has none such.
        """
        own = {"model": self.model, "precision": variant.precision, "rounding": variant.rounding}
        plan = plan_of({**self.chosen, **own})
        fits = calibrates(plan.precision, plan.rounding, find_target(plan.target))
        return dataclasses.replace(plan, calibration=self.calibration) if fits else plan


def asked_of(
    model: str,
    precisions: str,
    chosen: Mapping[str, Any],
    *,
    calibration: Sequence[str] = (),
    texts: Sequence[str] = (),
    problems: int = 0,
    rounds: int = 3,
) -> Asked:
    """The comparison that a command's options stand for.

    Args:
        precisions: names with commas between them; empty: those of `usual`.
        calibration: files.
        texts: files, or KIND=FILE.

    Raises:
        BuildError: an option says what cannot be.
    """
    plan = plan_of({**chosen, "model": model})  # what is wrong of all precisions alike is said at once
    target = find_target(plan.target)
    if not can_be_measured(target.name):
        raise BuildError(
            f"--target is {target.name}, whose engines cannot be measured alone: tokens come from another program",
            "compare for another target, or measure the server with `triune load`",
        )
    for name, value, least, most in (("rounds", rounds, 1, _MOST_ROUNDS), ("problems", problems, 0, _MOST_PROBLEMS)):
        if not least <= value <= most:
            raise BuildError(f"--{name} is {value:,}; it can be {least} to {most:,}", f"choose e.g. --{name} {max(least, 3)}")
    variants = _variants(precisions) if precisions.strip() else usual(target)
    if calibration and not any(
        calibrates(v.precision, v.rounding, target) for v in variants if v.precision in target.precisions
    ):
        raise BuildError(
            f"--calibration is {', '.join(calibration)}, but none of {', '.join(v.name for v in variants)} calibrates",
            "leave it out, or compare one that does, as those with codes chosen by GPTQ",
        )
    return Asked(
        model=model,
        variants=variants,
        chosen=chosen,
        calibration=tuple(read_user_text(file, "--calibration") for file in calibration),
        texts=tuple(map(_text, texts)),
        problems=problems,
        rounds=rounds,
    )


def can_be_measured(target: str) -> bool:
    """Whether an engine of that target can run alone, without what else serves it."""
    return runtime.find_target(target).generator is None


def usual(target: Target) -> tuple[Variant, ...]:
    """What is compared where nobody says: the float weights' twin, and all that quantize."""
    rounded = [name for name, row in target.precisions.items() if row.weights.schemes - {FLOAT}]
    return tuple(Variant(precision=name) for name in dict.fromkeys((target.float_twin, *rounded)))


def _variants(said: str) -> tuple[Variant, ...]:
    names = dict.fromkeys(part for part in said.replace(",", " ").split())
    if not names:
        raise BuildError(f"--precisions is {said!r}, which names none", "e.g. --precisions fp32,int8,int4")
    return tuple(map(variant_of, names))


def variant_of(name: str) -> Variant:
    """What a name such as int4-gptq stands for.

    Raises:
        BuildError: nothing, of any target.
    """
    known = list(dict.fromkeys(known for target in every_target() for known in target.precisions))
    if name in known:
        return Variant(precision=name)
    if (base := name.removesuffix(_BY_GPTQ)) in known and base != name:
        return Variant(precision=base, rounding=GPTQ)
    close = get_close_matches(name.lower(), known, n=1)
    raise BuildError(
        f"--precisions names {name!r}; known: {', '.join(known)}, and with {_BY_GPTQ} behind one: its codes chosen by GPTQ",
        f"did you mean {close[0]}?" if close else "e.g. --precisions fp32,int8,int4",
    )


def _text(said: str) -> UserText:
    kind, equals, file = said.partition("=")
    if not equals or Path(said).expanduser().exists():
        return read_user_text(said, "--text")
    if not kind.strip() or not file:
        raise BuildError(f"--text is {said!r}; it is a file, or KIND=FILE", "e.g. --text letters=letters.txt")
    return read_user_text(file, "--text", printable(kind.strip()))
