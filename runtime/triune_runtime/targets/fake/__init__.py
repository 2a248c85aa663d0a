"""No model at all: logits are a hash of what was run."""

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
    """It runs everywhere."""


def _runner(manifest: EngineManifest, folder: Path) -> Runner:
    from .runner import FakeRunner

    return FakeRunner(manifest.vocab_size, stop_token_ids=manifest.stop_token_ids)


def _store(manifest: EngineManifest, runner: Runner) -> KvStore:
    from ...kv.slots import Sharing, SlotStore

    limits = manifest.limits  # its logits depend on where prompts are cut
    return SlotStore(limits.max_sequences, limits.max_length, Sharing.of(manifest, limits.prefill_chunk))


TARGET = Target(check=_check, runner=_runner, device=lambda machine: "no device", bit_exact=True, store=_store)
