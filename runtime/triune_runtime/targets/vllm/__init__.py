"""vLLM, in a process of its own: what is too large for one device runs on several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ManifestError
from ..target import Hosting, Target
from .finding import find_python, version_of
from .plan import VllmPlan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from ...machine import Machine
    from ...manifest import EngineManifest
    from ...runner import Runner


def _check(manifest: EngineManifest, folder: Path, machine: Machine | None) -> None:
    """That there is a vLLM, and the checkpoint that it is to load."""
    plan = VllmPlan.of(manifest)
    checkpoint = plan.folder(folder)
    if not (checkpoint / "config.json").is_file():
        raise ManifestError(
            f"the checkpoint of this engine is not in {checkpoint}, where it was when the engine was built",
            "put it back, or build the engine again",
        )
    version_of(find_python())


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    raise ManifestError("engines of target vllm are run by vLLM: there is no runner for them", "serve it: make up TARGET=vllm")


def _generator(hosting: Hosting) -> object:
    from .hosting import start

    return start(hosting)


def _join(folder: Path, master: str, rank: int, stop: Event, leave: Event, around: Mapping[str, str]) -> None:
    from .joining import join

    join(folder, master, rank, stop, around, leave=leave)


def _device(machine: Machine) -> str:
    version = version_of(find_python())
    gpus = [str(gpu) for gpu in machine.gpus]
    return f"vLLM {version} on {', '.join(gpus) if gpus else 'the CPU'}"


TARGET = Target(
    check=_check, runner=_runner, device=_device, bit_exact=False, generator=_generator, join=_join, contained=False,
    start_s=3600.0, gpu="welcome", libraries=("libtorch",),
)  # fmt: skip
