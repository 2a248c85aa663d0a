"""The seam between the runtime and whatever computes logits: ONNX Runtime, TensorRT, or the fake for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ManifestError
from ..manifest import EngineManifest


@dataclass(frozen=True, slots=True)
class Work:
    """Run `tokens` of the sequence in `slot`, whose first `start` tokens are already in the KV cache.

    Logits are wanted after the last token, and after each of the `drafts` tokens before it.
    """

    slot: int
    start: int
    tokens: tuple[int, ...]
    drafts: int = 0


class Runner(Protocol):
    """Computes logits and owns the KV slots' memory; decides nothing."""

    @property
    def vocab_size(self) -> int: ...

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [rows, vocab_size]: of each item in turn, 1 + `drafts` rows, the last of them after its last token.

        Items of one token whose slots are 0, 1, ..., n-1 run as one batch; longer ones run one by one. A sequence's
        logits are the same bits whatever else is in `work`.
        """
        ...

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens' KV from slot `source` to slot `target`."""
        ...


def make_runner(manifest: EngineManifest, folder: Path) -> Runner:
    """The runner for `manifest.target`; the adapter's package is imported only here.

    Raises:
        ManifestError: no runner for that target, or the engine cannot run on this machine.
    """
    if manifest.target == "cpu":
        from .ort import OrtRunner

        return OrtRunner(manifest, folder)
    if manifest.target == "fake":
        from .fake import FakeRunner

        return FakeRunner(manifest.vocab_size, stop_token_ids=manifest.stop_token_ids)
    if manifest.target == "tensorrt":
        from .preflight import check_runnable

        check_runnable(manifest, folder)  # before packages are imported that only such a machine has
        from .tensorrt import tensorrt_runner

        return tensorrt_runner(manifest, folder)
    raise ManifestError(f"no runner for target {manifest.target!r}; known: cpu, tensorrt", "build the engine for one of these")
