"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..target import Target

if TYPE_CHECKING:
    from ...machine import Machine
    from ...manifest import EngineManifest
    from ...runner import Runner


def _check(manifest: EngineManifest, folder: Path, machine: Machine | None) -> None:
    """Every machine has a CPU."""


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    from .runner import OrtRunner

    return OrtRunner(manifest, folder)


TARGET = Target(check=_check, runner=_runner, device=lambda machine: "CPU", bit_exact=True)
