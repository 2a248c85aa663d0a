"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..target import Target

if TYPE_CHECKING:
    from ...kv.store import KvStore
    from ...machine import Machine
    from ...manifest import EngineManifest
    from ...runner import Runner


def _check(manifest: EngineManifest, folder: Path, machine: Machine | None) -> None:
    """Every machine has a CPU."""


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    from .runner import OrtRunner

    return OrtRunner(manifest, folder)


# A row of a prompt's attention has the same bits whatever rows are computed beside it, but for one alone, which has a kernel of
# its own: proved by tests/builder/test_prefix_bits.py. A margin, for kernels that take rows by the dozen.
_TOGETHER = 16


def _store(manifest: EngineManifest, runner: Runner) -> KvStore:
    from ...kv.slots import Sharing, SlotStore

    return SlotStore(manifest.limits.max_sequences, manifest.limits.max_length, Sharing.of(manifest, _TOGETHER))


TARGET = Target(
    check=_check, runner=_runner, device=lambda machine: "CPU", bit_exact=True, store=_store, libraries=("onnxruntime",)
)
