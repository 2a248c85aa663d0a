"""What an engine can run on: a folder a target. The table below is the one place that names them all."""

from __future__ import annotations

from pathlib import Path

from ..errors import ManifestError
from ..manifest import EngineManifest
from ..runner import Runner


def make_runner(manifest: EngineManifest, folder: Path) -> Runner:
    """The runner for `manifest.target`; the adapter's package is imported only here.

    Raises:
        ManifestError: no runner for that target, or the engine cannot run on this machine.
    """
    if manifest.target == "cpu":
        from .cpu.runner import OrtRunner

        return OrtRunner(manifest, folder)
    if manifest.target == "fake":
        from .fake.runner import FakeRunner

        return FakeRunner(manifest.vocab_size, stop_token_ids=manifest.stop_token_ids)
    if manifest.target == "tensorrt":
        from .tensorrt.preflight import check_runnable

        check_runnable(manifest, folder)  # before packages are imported that only such a machine has
        from .tensorrt.runner import tensorrt_runner

        return tensorrt_runner(manifest, folder)
    raise ManifestError(f"no runner for target {manifest.target!r}; known: cpu, tensorrt", "build the engine for one of these")
