"""The graph that the builder gives TensorRT, driven by the runner that will drive the engine: both sides of the contract.

ONNX Runtime computes the graph. Run: pytest tests/builder/test_trt_runner.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import tiny_deepseek
from fakes.host_engines import LoweredCompute, as_tensorrt
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from support.model_steps import LIMITS, assert_computes, by_reference
from triune_builder.graph.export import export
from triune_builder.targets import onnx_files
from triune_builder.targets.tensorrt import graph_files, lowering
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.device.host import HostDevice, HostEngine
from triune_runtime.targets.device.plan import Profile
from triune_runtime.targets.device.slot_runner import SlotRunner

TOLERANCE = 4e-2  # of the largest logit; float16 gives up to 3e-3, with experts 2.5e-2


CHECKPOINTS: dict[str, Callable[[], FakeCheckpoint]] = {
    "llama": lambda: tiny_checkpoint(hidden_size=64, intermediate_size=96),
    "mistral with a window": lambda: tiny_checkpoint(
        model_type="mistral", hidden_size=64, intermediate_size=96, sliding_window=6
    ),
    # of this seed no token's experts are so near a tie that float16 chooses others
    "deepseek_v3": lambda: tiny_deepseek.tiny_checkpoint(seed=1),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_lowered_graph_driven_by_the_runner_computes_the_model(tmp_path: Path, name: str) -> None:
    """Prefill in chunks, ragged decode (recorded at its second run), drafts, a copied slot; float16 against the reference."""
    checkpoint = CHECKPOINTS[name]()
    assert_computes(load(checkpoint, tmp_path), by_reference(checkpoint), TOLERANCE)


def load(checkpoint: FakeCheckpoint, folder: Path) -> SlotRunner:
    """Everything that a build does but the plan."""
    bundle = export(checkpoint, max_length=LIMITS.max_length)  # type: ignore[arg-type]  # a fake
    bundle = lowering.lower(bundle, max_length=LIMITS.max_length, dtype="float16")
    onnx_files.write(bundle, folder)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="tensorrt", precision="fp16", engine=graph_files.PLAN,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,), limits=LIMITS,
    )  # fmt: skip
    profiles = tuple(Profile(name=name, **sizes) for name, sizes in graph_files.profiles(LIMITS).items())
    manifest = as_tensorrt(manifest, capacity=lowering.capacity(LIMITS.max_length), profiles=profiles)
    device = HostDevice()
    return SlotRunner(manifest, device, HostEngine(manifest, device, LoweredCompute(folder / onnx_files.MODEL)))
