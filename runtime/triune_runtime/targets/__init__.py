"""What an engine can run on: a folder a target. The table below is the one place that names them all."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ManifestError
from ..manifest import EngineManifest

if TYPE_CHECKING:  # they import NumPy: memory for as long as a server's supervisor runs
    from ..machine import Machine
    from ..runner import Runner
    from .target import Target

DEFAULT_TARGET = "cpu"
TARGETS = ("cpu", "tensorrt", "cuda", "vllm", "fake")  # what a manifest names, and the package here that has its TARGET


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        ManifestError: there is none.
    """
    if name not in TARGETS:
        raise ManifestError(f"no runner for target {name!r}; known: {', '.join(TARGETS)}", "build the engine for one of these")
    target: Target = importlib.import_module(f"{__name__}.{name}").TARGET
    return target


def check_runnable(manifest: EngineManifest, folder: Path, machine: Machine | None = None) -> None:
    """Make sure that the engine of `manifest` in `folder` can run here, before anything of it is loaded.

    Args:
        machine: by default this one.

    Raises:
        ManifestError: names what was found, what is needed and the remedy.
    """
    find_target(manifest.target).check(manifest, folder, machine)


def make_runner(manifest: EngineManifest, folder: Path) -> Runner:
    """The runner for `manifest.target`.

    Raises:
        ManifestError: no runner for that target, or the engine cannot run on this machine.
    """
    target = find_target(manifest.target)
    target.check(manifest, folder, None)  # before packages are imported that only such a machine has
    return target.runner(manifest, folder)
