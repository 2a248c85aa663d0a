"""R1's architecture as a GGUF file. Run: pytest tests/builder/test_checkpoint_gguf_deepseek.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from tokenizers import pre_tokenizers

from fakes.tiny_deepseek import tiny_checkpoint
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.graph.promises import check_weights

TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "he"]
NAMES = {
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.q_proj": "attn_q", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}  # fmt: skip
YARN = {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0}


def model(**changes: Any) -> FakeCheckpoint:
    sizes = {"hidden_size": 64, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32}
    return tiny_checkpoint(**(sizes | {"vocab_size": 257, "num_hidden_layers": 2, "rope_scaling": YARN} | changes))


def metadata(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """As llama.cpp's converter writes it."""
    fields = {
        "block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"], "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "rope.freq_base": float(config["rope_theta"]),
        "attention.q_lora_rank": config["q_lora_rank"], "attention.kv_lora_rank": config["kv_lora_rank"],
        "attention.key_length": config["kv_lora_rank"] + config["qk_rope_head_dim"],
        "attention.value_length": config["kv_lora_rank"],
        "attention.key_length_mla": config["qk_nope_head_dim"] + config["qk_rope_head_dim"],
        "attention.value_length_mla": config["v_head_dim"], "rope.dimension_count": config["qk_rope_head_dim"],
        "leading_dense_block_count": config["first_k_dense_replace"], "vocab_size": config["vocab_size"],
        "expert_count": config["n_routed_experts"], "expert_used_count": config["num_experts_per_tok"],
        "expert_group_count": config["n_group"], "expert_group_used_count": config["topk_group"],
        "expert_feed_forward_length": config["moe_intermediate_size"], "expert_shared_count": config["n_shared_experts"],
        "expert_weights_scale": float(config["routed_scaling_factor"]), "expert_weights_norm": config["norm_topk_prob"],
        "expert_gating_func": 2, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_log_multiplier": 0.1,
    }  # fmt: skip
    return {key: value for key, value in (fields | changes).items() if value is not None}


def write(path: Path, fake: FakeCheckpoint, *, split: bool = True, dtype: str = "F32", **changes: Any) -> Path:
    """A deepseek2 file by the gguf package; `split`: keys' and values' up-projections apart, the keys' transposed."""
    config = fake.config
    writer = gguf.GGUFWriter(path, "deepseek2")
    for key, value in metadata(config, **changes).items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"deepseek2.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-v3")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * len(TOKENS))
    writer.add_token_merges(["h e"])
    for name, array in converted({name: tensor.array for name, tensor in fake.weights.items()}, config, split).items():
        kind = GGMLQuantizationType[dtype if array.ndim > 1 and array.shape[-1] % 32 == 0 else "F32"]
        writer.add_tensor(name, gguf.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def converted(weights: dict[str, np.ndarray], config: dict[str, Any], split: bool) -> dict[str, np.ndarray]:
    tops = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight"}  # fmt: skip
    found = {tops[name]: weights[name] for name in tops if name in weights}
    heads, lora = config["num_attention_heads"], config["kv_lora_rank"]
    for i in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{i}.", f"blk.{i}."
        for stem, name in NAMES.items():
            if f"{ours}{stem}.weight" in weights:
                found[f"{theirs}{name}.weight"] = weights[f"{ours}{stem}.weight"]
        up = weights[f"{ours}self_attn.kv_b_proj.weight"]
        if split:
            keys, values = np.split(up.reshape(heads, -1, lora), [config["qk_nope_head_dim"]], axis=1)
            found |= {f"{theirs}attn_k_b.weight": keys.transpose(0, 2, 1), f"{theirs}attn_v_b.weight": values}
        else:
            found[f"{theirs}attn_kv_b.weight"] = up
        if f"{ours}mlp.gate.weight" in weights:
            found[f"{theirs}exp_probs_b.bias"] = weights[f"{ours}mlp.gate.e_score_correction_bias"]
            for part in ("gate", "up", "down"):
                experts = [weights[f"{ours}mlp.experts.{e}.{part}_proj.weight"] for e in range(config["n_routed_experts"])]
                found[f"{theirs}ffn_{part}_exps.weight"] = np.stack(experts)
    return found


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(str(path), cache=path.parent)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "Q8_0", "Q4_1"])
def test_a_file_gives_the_weights_back_under_hugging_face_names(tmp_path: Path, dtype: str, split: bool) -> None:
    fake = model()
    checkpoint = opened(write(tmp_path / "m.gguf", fake, split=split, dtype=dtype))
    assert checkpoint.weights.keys() == fake.weights.keys()
    for name, tensor in fake.weights.items():
        got, wanted = checkpoint.weights[name].float32(), tensor.array
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= {"F32": 0, "BF16": 0.01, "Q8_0": 0.02, "Q4_1": 0.2}[dtype] * np.abs(wanted).max()
    expert = checkpoint.weights["model.layers.1.mlp.experts.3.down_proj.weight"]
    assert (expert.blocks() is not None) == dtype.startswith("Q")
    check_weights(checkpoint.config, checkpoint.weights)
    export(checkpoint, max_length=32)


def test_the_configuration_is_that_of_the_model(tmp_path: Path) -> None:
    fake = model()
    config = opened(write(tmp_path / "m.gguf", fake)).config
    for key in ("n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor", "q_lora_rank", "kv_lora_rank", "v_head_dim",
                "qk_nope_head_dim", "qk_rope_head_dim", "first_k_dense_replace", "n_shared_experts", "moe_intermediate_size",
                "num_key_value_heads", "scoring_func", "topk_method", "rope_theta", "num_experts_per_tok"):  # fmt: skip
        assert config[key] == fake.config[key], key
    expected = {"rope_type" if key == "type" else key: value for key, value in YARN.items()}
    assert config["rope_scaling"] == expected


def test_a_model_without_a_low_rank_for_queries_is_read(tmp_path: Path) -> None:
    fake = model(q_lora_rank=None)
    changes = {"attention.q_lora_rank": None}
    checkpoint = opened(write(tmp_path / "m.gguf", fake, **changes))
    assert checkpoint.weights.keys() == fake.weights.keys() and checkpoint.config.get("q_lora_rank") is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"expert_gating_func": 1}, r"expert_gating_func = 1"),
        ({"expert_group_count": None}, r"lacks deepseek2\.expert_group_count"),
        ({"rope.scaling.yarn_log_multiplier": None}, r"lacks deepseek2\.rope\.scaling\.yarn_log_multiplier"),
        ({"attention.temperature_length": 8192}, r"attention\.temperature_length = 8192"),
        ({"expert_count": 4}, r"ffn_gate_exps\.weight is \[8, 32, 64\]; 4 experts were expected"),
    ],
)
def test_what_is_not_understood_stops_the_build(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(BuildError, match=named):
        opened(write(tmp_path / "m.gguf", model(), **changes))
