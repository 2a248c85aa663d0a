"""The weights that an engine names are its decoder's: with them the fused kernel, on the CPU, computes what the graph does.

Run: pytest tests/builder/test_cuda_decoder.py (needs g++)
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import cuda_graphs
from fakes.block_tensors import in_blocks
from fakes.host_kernels import HostMemory, compile_for_host
from support.cuda_emulation import needs_compiler
from triune_builder.targets.cuda.network_runner import Item
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets.cuda.fused.decoder import FusedDecoder, StepAddresses
from triune_runtime.targets.cuda.fused.names import DecoderNames
from triune_runtime.targets.cuda.fused.shape import Gpu
from triune_runtime.targets.cuda.plan import CudaPlan
from triune_runtime.targets.device.stored import load_weights

SIZES = {
    "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128, "intermediate_size": 192,
}  # fmt: skip
TEXT = tuple(int(token) for token in np.random.default_rng(5).integers(0, 256, 60))
BLOCK = 16  # tokens, as the interpreter's memory has them
ERRORS = {"float16": 5e-3, "bfloat16": 3e-2}  # relative to the norm: logits that the graph rounds and the kernel does not


@needs_compiler
@pytest.mark.parametrize(
    ("architecture", "precision", "changes"),
    [
        ("llama", "fp16", {"tie_word_embeddings": False}),
        ("qwen2", "bf16", {}),
        ("qwen3", "fp16", {}),
        ("llama", "fp16-fp8kv", {}),
        ("qwen3", "bf16-fp8kv", {}),
        ("mistral", "bf16", {"sliding_window": 5}),
        ("llama", "int4-fp8kv", {"tie_word_embeddings": False}),
        ("qwen2", "int4", {"intermediate_size": 320}),  # its head is tied, and a product of its own
        ("llama", "int4", {"tie_word_embeddings": False, "hidden_size": 320}),
    ],
)
def test_the_kernel_computes_a_step_of_the_engine(
    architecture: str, precision: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    engine = cuda_graphs.lowered(cuda_graphs.tiny(architecture, **(SIZES | changes)), precision, tmp_path)
    plan = CudaPlan.of(read_again(engine.manifest, tmp_path))
    names = DecoderNames.of(plan.decoder)
    runner, memory = engine.runner(), HostMemory()
    runner.run([Item(0, 0, TEXT[:41]), Item(1, 0, TEXT[3:19])])
    step = [Item(0, 41, TEXT[41:42]), Item(1, 16, TEXT[19:20])]
    caches = {name.removeprefix("past."): memory.put(pool) for name, pool in runner.cache.items()}
    weights = {weight.name: memory.put(stored(weight, tmp_path)) for weight in load_weights(tmp_path)}
    decoder = FusedDecoder(
        dataclasses.replace(names.shape, block_tokens=BLOCK),
        2,
        Gpu(3, 1 << 20),
        device=memory,
        compile_kernel=compile_for_host(tmp_path),
    )
    decoder.bind(names.locate(weights, caches))
    feeds = runner.feeds(step)
    logits = memory.allocate(4 * 2 * runner.vocab_size)
    at = StepAddresses(
        input_ids=memory.put(feeds["input_ids"]),
        past_seqlens=memory.put(feeds["past_seqlens"]),
        block_table=memory.put(feeds["block_table"]),
        most_blocks=feeds["block_table"].shape[1],
        logits=logits,
    )
    decoder.enqueue(0, at)
    found = memory.read(logits, (2, runner.vocab_size), np.float32)
    expected = np.concatenate(runner.run(step))
    errors = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < ERRORS[plan.dtype]


@pytest.mark.parametrize(
    ("architecture", "precision", "changes"),
    [
        ("llama", "fp16", {"o_bias": True}),
        ("qwen2", "fp16", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),  # another in each layer
        ("deepseek_v3", "fp16", {}),
    ],
)
def test_a_model_that_the_kernel_does_not_compute_names_no_decoder(
    architecture: str, precision: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    engine = cuda_graphs.lowered(cuda_graphs.tiny(architecture, **changes), precision, tmp_path)
    assert not CudaPlan.of(engine.manifest).decoder


@pytest.mark.parametrize("weight", ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_a_checkpoint_whose_own_blocks_have_other_offsets_names_no_decoder(weight: str, tmp_path: Path) -> None:
    checkpoint = cuda_graphs.tiny("llama", tie_word_embeddings=False)
    blocked = {weight: in_blocks(checkpoint.weights[weight].array)}
    checkpoint = dataclasses.replace(checkpoint, weights=dict(checkpoint.weights) | blocked)
    engine = cuda_graphs.lowered(checkpoint, "int4", tmp_path)
    assert f"{weight}.rest" in engine.bundle.model.graph.initializers
    assert not CudaPlan.of(engine.manifest).decoder


def read_again(manifest: EngineManifest, folder: Path) -> EngineManifest:
    """As a server reads it."""
    manifest.save(folder)
    assert json.loads((folder / "engine.json").read_text("utf-8"))["plan"]
    return EngineManifest.load(folder)


def stored(weight: Any, folder: Path) -> np.ndarray[Any, Any]:
    """The bytes of a weight where weights.json says that they lie."""
    return np.fromfile(folder / weight.file, np.uint8, count=weight.length, offset=weight.offset)
