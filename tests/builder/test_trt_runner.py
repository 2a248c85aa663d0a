"""The graph that the builder gives TensorRT, driven by the runner that will drive the engine: both sides of the contract.

ONNX Runtime computes the graph. Run: pytest tests/builder/test_trt_runner.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import tiny_deepseek
from fakes.host_engines import LoweredCompute, as_tensorrt
from fakes.tiny_llama import FakeCheckpoint, tiny_checkpoint
from triune_builder.engine import ort, trt, trt_lowering
from triune_builder.graph.export import export
from triune_builder.verify.reference import score
from triune_runtime.manifest import EngineManifest, Limits, TensorRtProfile
from triune_runtime.runners import Work
from triune_runtime.runners.host import HostDevice, HostEngine
from triune_runtime.runners.slot_runner import SlotRunner

TOLERANCE = 4e-2  # of the largest logit; float16 gives up to 3e-3, with experts 2.5e-2
LIMITS = Limits(max_sequences=3, max_length=40, prefill_chunk=16)
TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 40))
STEPS = [
    [Work(0, 0, TOKENS[:16])],
    [Work(0, 16, TOKENS[16:20]), Work(1, 0, TOKENS[5:12])],
    [Work(0, 20, TOKENS[20:21]), Work(1, 7, TOKENS[12:13]), Work(2, 0, TOKENS[:9])],
    [Work(2, 9, TOKENS[9:16]), Work(0, 21, TOKENS[21:22]), Work(1, 8, TOKENS[13:14])],
    [Work(1, 9, TOKENS[14:15]), Work(0, 22, TOKENS[22:23]), Work(2, 16, TOKENS[16:17])],
    [Work(1, 10, TOKENS[15:16]), Work(0, 23, TOKENS[23:24]), Work(2, 17, TOKENS[17:18])],
    [Work(0, 24, TOKENS[30:34], drafts=3), Work(2, 18, TOKENS[18:20], drafts=1)],
]


CHECKPOINTS: dict[str, Callable[[], FakeCheckpoint]] = {
    "llama": lambda: tiny_checkpoint(hidden_size=64, intermediate_size=96),
    "llama with a window": lambda: tiny_checkpoint(hidden_size=64, intermediate_size=96, sliding_window=6),
    # of this seed no token's experts are so near a tie that float16 chooses others
    "deepseek_v3": lambda: tiny_deepseek.tiny_checkpoint(seed=1),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_lowered_graph_driven_by_the_runner_computes_the_model(tmp_path: Path, name: str) -> None:
    """Prefill in chunks, ragged decode (recorded at its second run), drafts, a copied slot; float16 against the reference."""
    checkpoint = CHECKPOINTS[name]()
    runner, history = load(checkpoint, tmp_path), dict.fromkeys(range(3), ())

    def check(item: Work, rows: NDArray[np.float32]) -> None:
        history[item.slot] = (*history[item.slot][: item.start], *item.tokens)
        last = len(history[item.slot]) - 1
        scored = score(checkpoint.config, checkpoint.weights, [history[item.slot]], [range(last - item.drafts, last + 1)])
        expected = np.concatenate([block.logits for block in scored])
        assert np.abs(rows - expected).max() / np.abs(expected).max() < TOLERANCE, item

    for work in STEPS:
        logits = iter(runner.run(work))
        for item in work:
            check(item, np.stack([next(logits) for _ in range(1 + item.drafts)]))
    runner.copy_slot(0, 1, 26)  # two of the drafts are taken back
    history[1] = history[0][:26]
    last = Work(1, 26, TOKENS[5:6])
    check(last, runner.run([last]))


def load(checkpoint: FakeCheckpoint, folder: Path) -> SlotRunner:
    """Everything that a build does but the plan."""
    bundle = export(checkpoint, max_length=LIMITS.max_length)  # type: ignore[arg-type]  # a fake
    bundle = trt_lowering.lower(bundle, max_length=LIMITS.max_length, dtype="float16")
    ort.write(bundle, folder)
    manifest = EngineManifest(
        model="tiny", architecture=bundle.architecture, target="tensorrt", precision="fp16", engine=trt.PLAN,
        vocab_size=bundle.vocab_size, cache=bundle.cache, stop_token_ids=(0,), limits=LIMITS,
    )  # fmt: skip
    profiles = tuple(TensorRtProfile(name=name, **sizes) for name, sizes in trt.profiles(LIMITS).items())
    manifest = as_tensorrt(manifest, capacity=trt_lowering.capacity(LIMITS.max_length), profiles=profiles)
    device = HostDevice()
    return SlotRunner(manifest, device, HostEngine(manifest, device, LoweredCompute(folder / ort.MODEL)))
