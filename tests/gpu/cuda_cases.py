"""Writes what tests/gpu/test_cuda_graphs.py runs: small graphs, their steps, and the logits that the interpreter finds.

Run: python tests/gpu/cuda_cases.py FOLDER. It needs the builder's packages and no GPU; what it writes needs neither.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / part) for part in ("builder", "runtime", "tests")]

from fakes import cuda_graphs  # noqa: E402  (the line above lets them be found)
from fakes.tiny_llama import FakeCheckpoint  # noqa: E402
from triune_builder.targets.cuda.interpreter import Interpreter  # noqa: E402
from triune_builder.targets.cuda.network_runner import Item, NetworkRunner  # noqa: E402
from triune_runtime.targets.cuda.plan import CudaPlan  # noqa: E402
from triune_runtime.targets.device.stored import load_weights  # noqa: E402

LONGEST = 512
HEADS = {"head_dim": 128, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 256, "intermediate_size": 512}
LATENT = {"kv_lora_rank": 128, "qk_rope_head_dim": 64, "hidden_size": 256, "num_hidden_layers": 2, "first_k_dense_replace": 1}
ALL_EXPERTS = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8}  # a rounding may choose another one
WINDOWS = {"use_sliding_window": True, "sliding_window": 130, "max_window_layers": 1}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama fp16": ("llama", "fp16", HEADS),
    "llama bf16": ("llama", "bf16", HEADS),
    "llama biases fp16": ("llama", "fp16", HEADS | {"o_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    "qwen2 bf16": ("qwen2", "bf16", HEADS),
    "qwen2 windows bf16": ("qwen2", "bf16", HEADS | WINDOWS),
    "qwen3 fp16": ("qwen3", "fp16", HEADS),
    "qwen3 bf16": ("qwen3", "bf16", HEADS),
    "mistral short window fp16": ("mistral", "fp16", HEADS | {"sliding_window": 5}),
    "mistral long window fp16": ("mistral", "fp16", HEADS | {"sliding_window": 140}),
    "deepseek_v3 fp16": ("deepseek_v3", "fp16", LATENT | ALL_EXPERTS),
    "deepseek_v3 bf16": ("deepseek_v3", "bf16", LATENT | ALL_EXPERTS),
    "deepseek_v3 groups fp16": ("deepseek_v3", "fp16", LATENT),
    "deepseek_v3 fp8 cache": ("deepseek_v3", "fp16-fp8kv", LATENT | ALL_EXPERTS),
    "llama int4": ("llama", "int4", HEADS),
    "deepseek_v3 int4": ("deepseek_v3", "int4", LATENT | ALL_EXPERTS),
    "qwen2 fp8 cache fp16": ("qwen2", "fp16-fp8kv", HEADS),
    "qwen2 fp8 cache bf16": ("qwen2", "bf16-fp8kv", HEADS),
}


def write(name: str, folder: Path) -> None:
    """One case: a graph with its weights, steps.npz with feeds and logits, and case.json."""
    architecture, precision, changes = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    engine = cuda_graphs.lowered(milder(cuda_graphs.tiny(architecture, **changes)), precision, folder, length=LONGEST)
    manifest = engine.manifest
    block = CudaPlan.of(manifest).block_tokens
    interpreter = Interpreter(folder / manifest.engine, load_weights(folder))
    runner = NetworkRunner(interpreter, manifest, lanes=4, longest=LONGEST, block_tokens=block)
    arrays: dict[str, Any] = {}
    planned = steps(tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, LONGEST)))
    for number, items in enumerate(planned):
        arrays |= {f"{number}.{key}": array for key, array in runner.feeds(items).items()}
        arrays[f"{number}.logits"] = np.concatenate(runner.run(items))
    np.savez(folder / "steps.npz", **arrays)
    cache = {name: {"dtype": pool.dtype.name, "shape": pool.shape} for name, pool in runner.cache.items()}
    said = {"name": name, "graph": manifest.engine, "precision": precision, "steps": len(planned), "cache": cache}
    (folder / "case.json").write_text(json.dumps(said))


def milder(checkpoint: FakeCheckpoint) -> FakeCheckpoint:
    """With smaller products, so that one rounding is not the next layer's other answer."""
    for name, tensor in checkpoint.weights.items():
        if "_proj" in name and name.endswith("weight"):
            tensor.array[:] *= 0.6
    return checkpoint


def steps(t: tuple[int, ...]) -> list[list[Item]]:
    """Packed prompts, a chunk beside decoding, decoding alone, four tokens of one sequence beside one of another."""
    return [
        [Item(0, 0, t[:150]), Item(1, 0, t[5:45]), Item(2, 0, t[2:9])],
        [Item(0, 150, t[150:290]), Item(2, 7, t[9:10]), Item(3, 0, t[1:2]), Item(1, 40, t[45:46])],
        *([Item(3, 1 + i, t[2 + i : 3 + i]), Item(0, 290 + i, t[290 + i : 291 + i]), Item(1, 41 + i, t[46 + i : 47 + i])]
          for i in range(3)),
        [Item(0, 293, t[293:297]), Item(1, 44, t[49:51]), Item(2, 8, t[10:11])],
    ]  # fmt: skip


def write_all(folder: Path) -> None:
    for name in CASES:
        write(name, folder / name.replace(" ", "-"))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
