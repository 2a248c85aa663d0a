"""What a graph lowered for CUDA computes, in NumPy, is the model: packed steps, shuffled blocks, every precision.

Run: pytest tests/builder/test_cuda_network.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.cuda_graphs import ARCHITECTURES, Lowered, history, lowered, quantized, steps, tiny
from fakes.definitions import definition, difference

TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 256, 40)]
TOLERANCE = {"fp16": 0.02, "bf16": 0.1, "int4": 0.05, "fp16-fp8kv": 0.5}  # eight-bit floats are good to a sixteenth
ALL_EXPERTS = {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 8}  # rounding may choose another expert


def differences(engine: Lowered, expected: Any, *, own_ops: bool) -> list[float]:
    """Of a graph's logits after each item of all steps."""
    runner = engine.runner(own_ops=own_ops)
    found = []
    for items in steps(TOKENS):
        for item, rows in zip(items, runner.run(items), strict=True):
            assert len(rows) == len(item.tokens)
            found.append(difference(rows[-1], expected(history(TOKENS, item))))
    assert runner.foreign_untouched()
    return found


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_graph_computes_packed_prompts_chunks_beside_decoding_and_ragged_steps(
    architecture: str, precision: str, tmp_path: Path
) -> None:
    changes = ALL_EXPERTS if architecture == "deepseek_v3" and precision != "fp16" else {}
    checkpoint = tiny(architecture, **changes)
    engine = lowered(checkpoint, precision, tmp_path)
    plain = quantized(checkpoint, precision) if precision.startswith("int4") else None
    expected = definition(checkpoint, plain, tmp_path)
    for own_ops in (False, True):
        assert max(differences(engine, expected, own_ops=own_ops)) < TOLERANCE[precision]


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "num_hidden_layers": 3}),
        ("mistral", {"sliding_window": 4}),
        ("llama", {"tie_word_embeddings": False, "num_key_value_heads": 1}),
        ("llama", {"o_bias": True, "mlp_bias": True}),
        ("qwen3", {"o_bias": True, "num_key_value_heads": 4}),
        ("deepseek_v3", {"kv_lora_rank": 512, "qk_rope_head_dim": 64}),  # R1's 576
        ("deepseek_v3", {"q_lora_rank": None, "rope_interleave": False}),
        ("deepseek_v3", {"norm_topk_prob": False, "n_shared_experts": None}),
        ("deepseek_v3", {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 0}),
    ],
    ids=lambda x: x if isinstance(x, str) else ",".join(x),
)
def test_what_configs_vary_is_in_the_graph(architecture: str, changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = tiny(architecture, **changes)
    engine = lowered(checkpoint, "fp16", tmp_path)
    expected = definition(checkpoint, None, tmp_path)
    for own_ops in (False, True):
        found = differences(engine, expected, own_ops=own_ops)
        # A rounding may choose another expert for a token; a wrong choice would show everywhere.
        assert (float(np.median(found)) if architecture == "deepseek_v3" else max(found)) < TOLERANCE["fp16"]
