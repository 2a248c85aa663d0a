"""What tests/gpu/test_full_size.py holds engines against on a GPU is right, and sees what is wrong: rehearsed in NumPy.

Run: pytest tests/builder/test_full_size_torch.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fakes import cuda_graphs
from triune_builder.targets.cuda.interpreter import Interpreter
from triune_builder.targets.cuda.network_runner import Item, NetworkRunner
from triune_runtime.runner import Order, Work
from triune_runtime.targets.device.stored import load_weights

torch = pytest.importorskip("torch")

from support.dense_reference import DenseReference, with_codes  # noqa: E402  (torch may be missing)
from support.full_size_trial import BOUNDS, Drive, drive  # noqa: E402

SLOTS, LENGTH, PROMPTS = 10, 60, (7, 15, 33, 40)


class InNumPy:
    """A runner of an engine's graph, interpreted: its `launch` is over when it returns."""

    def __init__(self, engine: cuda_graphs.Lowered) -> None:
        interpreter = Interpreter(engine.folder / engine.manifest.engine, load_weights(engine.folder))
        self._network = NetworkRunner(interpreter, engine.manifest, lanes=SLOTS, longest=cuda_graphs.LENGTH)

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = ()) -> Any:
        made = self._network.run([Item(item.slot, item.start, item.tokens) for item in work])
        rows = [logits[len(logits) - item.rows :] for logits, item in zip(made, work, strict=True)]
        return SimpleNamespace(collect=lambda: SimpleNamespace(logits=np.concatenate(rows)))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4", "bf16-fp8kv"])
def test_the_reference_of_the_trial_on_gpus_computes_what_engines_do(architecture: str, precision: str, tmp_path: Path) -> None:
    checkpoint = cuda_graphs.tiny(architecture)
    for name, tensor in checkpoint.weights.items():
        if name.endswith("_proj.weight"):  # else one rounding is the next layer's other answer
            tensor.array[:] *= 0.5
        if name == "model.embed_tokens.weight":
            tensor.array[:] *= 8
    engine = cuda_graphs.lowered(checkpoint, precision, tmp_path)
    weights = {name: torch.from_numpy(np.array(tensor.array, np.float32)) for name, tensor in checkpoint.weights.items()}
    reference = DenseReference(checkpoint.config, with_codes(weights, tmp_path) if precision == "int4" else weights)
    found: dict[str, float] = {}
    run = Drive(InNumPy(engine), reference, engine.manifest.vocab_size, 16, SLOTS, LENGTH)  # type: ignore[arg-type]
    drive(run, found.__setitem__, replays=12, prompts=PROMPTS)
    print(found)
    assert len(found) == 8 and max(found.values()) < 4 * BOUNDS[precision]
    if precision == "fp16":
        weights["model.layers.1.self_attn.k_proj.weight"][3] *= 1.2
        assert run.error([run.work(SLOTS - 1, 1)]) < 4 * BOUNDS[precision], "what is known stays"
        other = Drive(InNumPy(engine), reference, engine.manifest.vocab_size, 16, SLOTS, LENGTH)  # type: ignore[arg-type]
        assert other.error([other.work(0, 20)]) > BOUNDS[precision], "a weight that is wrong shows"
