"""The graph's reader of config.json against transformers' own, on random configs: it reads what transformers reads, or refuses.

Run: pytest tests/builder/test_config_readers_torch.py (needs torch and transformers, and skips without)
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

from support.random_configs import configs
from triune_builder.errors import BuildError
from triune_builder.graph.arch import ARCHITECTURES
from triune_builder.graph.arch.deepseek_config import Config as DeepSeekConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "deepseek_v3": "DeepseekV3"}


def theirs(config: dict[str, Any]) -> Any:
    """transformers' config, with the numbers that its strict fields want as floats."""
    floats = {k: float(v) for k, v in config.items() if k in ("rms_norm_eps", "routed_scaling_factor") and v is not None}
    return getattr(transformers, f"{CLASSES[config['model_type']]}Config")(**json.loads(json.dumps(config | floats)))


@settings(max_examples=120, deadline=None)
@given(config=configs())
def test_what_is_read_is_what_transformers_reads(config: dict[str, Any]) -> None:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    assume(not rope.get("attn_factor"))  # which transformers does not know
    try:
        cfg = ARCHITECTURES[config["model_type"]].read(config)
    except BuildError:
        assume(False)
    try:
        other = theirs(config)
        modeling = importlib.import_module(f"transformers.models.{config['model_type']}.modeling_{config['model_type']}")
        rotary = getattr(modeling, f"{CLASSES[config['model_type']]}RotaryEmbedding")(other)
        layer = getattr(modeling, f"{CLASSES[config['model_type']]}Attention")(other, 0)
    except Exception:  # null where its strict fields want a value, keys that its validation wants
        assume(False)
    length = min(80, getattr(cfg.rope.scaling, "limit", 80))
    cos, sin = rotary(torch.zeros(1), torch.arange(length)[None])
    pairs = cfg.rope.dim // 2
    for mine, their in zip(cfg.rope.tables(length), (cos, sin), strict=True):
        np.testing.assert_allclose(mine, their[0, :, :pairs].numpy(), rtol=0, atol=1e-4)
    assert cfg.rms_norm_eps == other.rms_norm_eps and cfg.tie_word_embeddings == other.tie_word_embeddings
    if isinstance(cfg, DeepSeekConfig):
        names = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "first_k_dense_replace",
                 "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "routed_scaling_factor", "attention_bias",
                 "moe_intermediate_size", "num_nextn_predict_layers")  # fmt: skip
        assert [getattr(cfg, name) for name in names] == [getattr(other, name) or 0 if name.startswith("num_nextn") else
                                                          getattr(other, name) for name in names]  # fmt: skip
        groups = (cfg.n_group, cfg.topk_group, cfg.norm_topk_prob, cfg.rope_interleave)
        assert groups == (other.n_group or 1, other.topk_group or 1, bool(other.norm_topk_prob), bool(other.rope_interleave))
        assert cfg.softmax_scale == pytest.approx(layer.scaling)
        return
    assert (cfg.num_key_value_heads, cfg.head_dim) == (other.num_key_value_heads, layer.head_dim)
    biased = {name for name in ("q_proj", "k_proj", "v_proj", "o_proj") if getattr(layer, name).bias is not None}
    assert biased == cfg.biases - {"gate_proj", "up_proj", "down_proj"}
    assert cfg.head_norms == hasattr(layer, "q_norm")
    kinds = getattr(other, "layer_types", None) if config["model_type"].startswith("qwen") else None
    window = getattr(other, "sliding_window", None) if config["model_type"] != "llama" else None
    sees = [window if kinds is None or kind == "sliding_attention" else None for kind in kinds or cfg.windows]
    assert list(cfg.windows) == sees
