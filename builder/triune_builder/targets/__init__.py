"""What an engine can be built for: a folder a target. The table below is the one place that names them all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from triune_runtime.targets import DEFAULT_TARGET as DEFAULT_TARGET

from ..errors import BuildError
from .target import Target

TARGETS = ("cpu", "tensorrt")  # the packages here, each with its TARGET in target.py


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in TARGETS:
        raise BuildError(
            f"unknown target {name!r}; known: {', '.join(TARGETS)}", f"choose a known target, e.g. {DEFAULT_TARGET}"
        )
    target: Target = importlib.import_module(f"{__name__}.{name}.target").TARGET
    return target


def every_target() -> Iterator[Target]:
    """All of them, in the table's order."""
    return map(find_target, TARGETS)
