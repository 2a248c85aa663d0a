"""What the runtime must know of a target to run its engines. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # of which the last imports NumPy
    from ..kv.store import KvStore
    from ..machine import Machine
    from ..manifest import EngineManifest
    from ..runner import Runner


def slots(manifest: EngineManifest, runner: Runner) -> KvStore:
    """A slot for each sequence, which shares nothing."""
    from ..kv.slots import SlotStore  # with what it imports

    return SlotStore(manifest.limits.max_sequences, manifest.limits.max_length)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target: the TARGET of its folder."""

    check: Callable[[EngineManifest, Path, Machine | None], None]
    """Raise ManifestError if the engine of a manifest in a folder cannot run on a machine; None: on this one.

    Loads nothing of the engine, and imports no package that only a machine which can run it has.
    """

    runner: Callable[[EngineManifest, Path], Runner]
    """The runner of an engine that `check` accepts, loaded; raises ManifestError if it cannot be."""

    device: Callable[[Machine], str]
    """What of a machine runs the engines, for people; raises ManifestError if it has no such thing."""

    bit_exact: bool
    """Whether a sequence's logits are the same bits whatever else is in the run."""

    store: Callable[[EngineManifest, Runner], KvStore] = slots
    """The books of the KV memory of a loaded runner."""
