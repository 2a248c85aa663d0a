"""What to build: the choices of one build, validated once. Reads no file and imports no tool."""

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
from .targets import DEFAULT_TARGET, every_target, find_target
from .targets.target import Target

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
        choices = dataclasses.asdict(self) | {"model": meaning_of(self.model).readable}
        return digest({"plan": choices, "checkpoint": dict(checkpoint), "code": code, "tools": dict(tools)})


def plan_of(chosen: Mapping[str, Any]) -> BuildPlan:
    """The plan that the options of `triune build` stand for.

    Args:
        chosen: by the options' names; None or none at all: the default. What is no field of a plan or of its limits is a
            flag of the target's.

    Raises:
        BuildError: as `BuildPlan`.
    """
    of_plan, of_limits = ({field.name for field in dataclasses.fields(kind)} for kind in (BuildPlan, Limits))
    given = {name: value for name, value in chosen.items() if value is not None}
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
    return BuildPlan(
        **{name: value for name, value in given.items() if name in of_plan},
        limits=Limits(**{name: value for name, value in given.items() if name in of_limits}),
        auto_length=auto,
        options={name: value for name, value in given.items() if value and name not in of_plan | of_limits},
    )


def _choice(what: str, value: str, target: Target, example: str, known: Callable[[Target], Collection[str]]) -> None:
    if value not in known(target):
        elsewhere = any(value in known(other) for other in every_target())
        problem = f"target {target.name} has no {what} {value!r}" if elsewhere else f"unknown {what} {value!r}"
        close = get_close_matches(value.lower(), known(target), n=1)
        hint = f"did you mean {close[0]}?" if close and not elsewhere else f"choose {option(what, example)}"
        raise BuildError(f"{problem}; known: {', '.join(known(target))}", hint)


def _check_flags(options: Mapping[str, Any], target: Target) -> None:
    for name in options.keys() - {flag.name for flag in target.flags}:
        owner = next((t for t in every_target() if any(flag.name == name for flag in t.flags)), None)
        assert owner is not None, f"{name} is no target's flag"
        flags = [flag.option for flag in owner.flags]
        raise BuildError(
            f"{' and '.join(flags)} {'are' if len(flags) > 1 else 'is'} of target {owner.name}, not of {target.name}",
            f"leave them out, or choose {option('target', owner.name)}",
        )
