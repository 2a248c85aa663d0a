"""What an engine can be built for: a folder a target. The table below is the one place that names them all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from difflib import get_close_matches

from triune_runtime.targets import DEFAULT_TARGET as DEFAULT_TARGET

from ..errors import BuildError, option
from .target import Target

TARGETS = ("cpu", "tensorrt", "cuda", "vllm")  # the packages here, each with its TARGET in target.py


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in TARGETS:
        close = get_close_matches(name.lower(), TARGETS, n=1)
        raise BuildError(
            f"unknown target {name!r}; known: {', '.join(TARGETS)}",
            f"did you mean {close[0]}?" if close else f"choose {option('target', DEFAULT_TARGET)}",
        )
    target: Target = importlib.import_module(f"{__name__}.{name}.target").TARGET
    return target


def every_target() -> Iterator[Target]:
    """All of them, in the table's order."""
    return map(find_target, TARGETS)
