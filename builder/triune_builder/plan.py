"""What to build: the choices of one build, validated once. Reads no file but a user's texts, and imports no tool."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from triune_runtime.manifest import Limits

from .errors import BuildError, option
from .fingerprint import digest
from .lengths import Room, choose_length, machine_memory
from .naming import DEFAULT_MODEL as DEFAULT_MODEL
from .naming import meaning_of
from .places import folder_of as folder_of
from .places import repository_of as repository_of
from .quantize.policy import BY_GPTQ, GPTQ, NEAREST, OBSERVED, ROUNDINGS
from .targets import DEFAULT_TARGET, TARGETS, every_target, find_target
from .targets.target import Target
from .verify.texts import UserText, read_user_text

AUTO, NONE = "auto", "none"  # values of --verify that every target takes beside its proofs; the first of --max-length, too
_MAXIMA = {"max_sequences": 1024, "max_length": 1 << 20, "prefill_chunk": 1 << 16, "max_queue": 1 << 20}


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """One build. `model` is a name the builder knows, a folder, a .gguf file, or a hub id.

    Raises:
        BuildError: a choice that is not known, or a limit out of range.
    """

    model: str = DEFAULT_MODEL
    target: str = DEFAULT_TARGET
    precision: str = ""  # empty: the target's default, which then stands here
    verify: str = AUTO
    rounding: str = NEAREST  # gptq: codes of four bits are chosen by what the product makes of the calibration texts
    calibration: tuple[UserText, ...] = ()  # in place of the texts that it is otherwise calibrated on
    speculation: str = "off"  # on: drafts of further tokens can be checked
    limits: Limits = dataclasses.field(default_factory=Limits)
    auto_length: bool = False  # the limits' max_length is to be chosen by the model and this machine's memory: `sized`
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # values of the target's flags that were given

    def __post_init__(self) -> None:
        meaning_of(self.model)  # raises
        target = find_target(self.target)
        if not self.precision:
            object.__setattr__(self, "precision", target.default_precision)
        _choice("precision", self.precision, target, target.default_precision, lambda t: t.precisions)
        _choice("verify", self.verify, target, AUTO, lambda t: (AUTO, *t.proofs, NONE))
        _choice("speculation", self.speculation, target, target.speculations[0], lambda t: t.speculations)
        _check_rounding(self.rounding, self.precision, target)
        _check_calibration(self.calibration, self.precision, self.rounding, target)
        _check_flags(self.options, target)
        target.check(self)
        for name, most in _MAXIMA.items():
            value, flag = getattr(self.limits, name), "--" + name.replace("_", "-")
            if not 1 <= value <= most:
                nearest = max(1, min(value, most))
                raise BuildError(f"{flag} is {value:,}; it can be 1 to {most:,}", f"choose e.g. {option(name, nearest)}")
        if self.limits.max_length < 2:
            raise BuildError("--max-length is 1: no room for an answer", f"choose {option('max_length', 2)} or more")

    def folder(self, build_dir: Path) -> Path:
        """Where the results of this model and target lie."""
        return folder_of(self.model, self.target, build_dir)

    def repository(self, build_dir: Path) -> Path:
        """What Triton mounts."""
        return repository_of(self.model, self.target, build_dir)

    def sized(self, room: Room, memory: int | None = None) -> tuple[BuildPlan, str]:
        """The plan with the length that its sequences are to have, and why it is that.

        Args:
            memory: bytes of the machine; by default of this one.

        Raises:
            BuildError: the length that is asked for is more than the model is made for.
        """
        if self.auto_length:
            memory = machine_memory() if memory is None else memory
            chosen = choose_length(room, self.limits.max_sequences, find_target(self.target), memory)
            limits = dataclasses.replace(self.limits, max_length=chosen.tokens)
            return dataclasses.replace(self, limits=limits, auto_length=False), chosen.why
        asked = self.limits.max_length
        if room.own is not None and asked > room.own:
            raise BuildError(
                f"--max-length is {asked:,}; {self.model} is made for {room.own:,} tokens",
                f"choose {option('max_length', room.own)} or less, or leave it out",
            )
        return self, "as asked for"

    def hash(self, *, checkpoint: Mapping[str, str], code: str, tools: Mapping[str, str]) -> str:
        """Hash of all that decides the result.

        Args:
            checkpoint: name -> content hash of each file of the checkpoint.
            code: hash of the builder's, the runtime's and the model repository's sources.
            tools: package -> version.
        """
        # Where the same files lie changes nothing.
        texts = [text.sha256 for text in self.calibration]
        choices = dataclasses.asdict(self) | {"model": meaning_of(self.model).readable, "calibration": texts}
        return digest({"plan": choices, "checkpoint": dict(checkpoint), "code": code, "tools": dict(tools)})


def plan_of(chosen: Mapping[str, Any]) -> BuildPlan:
    """The plan that the options of `triune build` stand for.

    Args:
        chosen: by the options' names; None or none at all: the default. What is no field of a plan or of its limits is a
            flag of the target's.

    Raises:
        BuildError: as `BuildPlan`, or a file of calibration that is none.
    """
    of_plan, of_limits = ({field.name for field in dataclasses.fields(kind)} for kind in (BuildPlan, Limits))
    given = {name: value for name, value in chosen.items() if is_given(value)}
    for flag in (flag for target in every_target() for flag in target.flags if flag.stands_for and flag.name in given):
        given[flag.stands_for] = given.pop(flag.name)
    if "calibration" in given:
        given["calibration"] = tuple(read_user_text(file, "--calibration") for file in given["calibration"])
    length = str(given.pop("max_length", AUTO)).strip().lower().replace(",", "").replace("_", "")
    auto = length == AUTO
    if not auto:
        try:
            given["max_length"] = int(length)
        except ValueError:
            raise BuildError(
                f"--max-length is {length!r}; it is a number of tokens, or {AUTO}",
                f"choose e.g. {option('max_length', 2048)}, or leave it out",
            ) from None
    options = {name: value for name, value in given.items() if name not in of_plan | of_limits}
    if (target := str(given.get("target", DEFAULT_TARGET))) in TARGETS:
        options |= find_target(target).found_here(options)
    return BuildPlan(
        **{name: value for name, value in given.items() if name in of_plan},
        limits=Limits(**{name: value for name, value in given.items() if name in of_limits}),
        auto_length=auto,
        options=options,
    )


def is_given(value: object) -> bool:
    """Whether an option's value says something: not so of a switch that is off, nor of an empty list."""
    return value is not None and value is not False and value not in ((), [])


def calibrates(precision: str, rounding: str, target: Target) -> bool:
    """Whether an engine of that precision depends on the calibration texts."""
    return rounding == GPTQ or bool(target.precisions[precision].weights.schemes & OBSERVED)


def _choice(what: str, value: str, target: Target, example: str, known: Callable[[Target], Collection[str]]) -> None:
    if value not in known(target):
        elsewhere = any(value in known(other) for other in every_target())
        problem = f"target {target.name} has no {what} {value!r}" if elsewhere else f"unknown {what} {value!r}"
        close = get_close_matches(value.lower(), known(target), n=1)
        hint = f"did you mean {close[0]}?" if close and not elsewhere else f"choose {option(what, example)}"
        raise BuildError(f"{problem}; known: {', '.join(known(target))}", hint)


def _check_rounding(value: str, precision: str, target: Target) -> None:
    _choice("rounding", value, target, NEAREST, lambda t: ROUNDINGS)
    fit = [name for name, row in target.precisions.items() if row.weights.schemes & BY_GPTQ.keys()]
    if value != GPTQ or precision in fit:
        return
    plain = option("rounding", NEAREST)
    raise BuildError(
        f"--rounding is {GPTQ}, which chooses codes of four bits; "
        f"{f'precision {precision}' if fit else f'target {target.name}'} has none",
        f"choose {option('precision', fit[0])} or {plain}" if fit else f"choose {plain}",
    )


def _check_calibration(texts: Collection[UserText], precision: str, rounding: str, target: Target) -> None:
    if not texts or calibrates(precision, rounding, target):
        return
    fit = [option("precision", name) for name in target.precisions if calibrates(name, NEAREST, target)]
    by_gptq = any(row.weights.schemes & BY_GPTQ.keys() for row in target.precisions.values())
    fit += [option("rounding", GPTQ) + " with a precision of four bits"] * by_gptq
    raise BuildError(
        f"--calibration is {', '.join(text.file for text in texts)}, but precision {precision} of target {target.name} "
        "calibrates nothing",
        f"leave it out, or choose {' or '.join(fit)}" if fit else "leave it out",
    )


def _check_flags(options: Mapping[str, Any], target: Target) -> None:
    for name in options.keys() - {flag.name for flag in target.flags}:
        owner = next((t for t in every_target() if any(flag.name == name for flag in t.flags)), None)
        assert owner is not None, f"{name} is no target's flag"
        flags = [flag.option for flag in owner.flags]
        raise BuildError(
            f"{' and '.join(flags)} {'are' if len(flags) > 1 else 'is'} of target {owner.name}, not of {target.name}",
            f"leave them out, or choose {option('target', owner.name)}",
        )
