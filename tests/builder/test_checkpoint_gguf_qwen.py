"""GGUF files of Qwen2 and Qwen3, named by the gguf package. Run: pytest tests/builder/test_checkpoint_gguf_qwen.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from fakes.tiny_dense import dense_checkpoint
from fakes.tiny_llama import FakeCheckpoint
from triune_builder.checkpoint import open_checkpoint
from triune_builder.checkpoint.gguf_architectures import read_config
from triune_builder.errors import BuildError
from triune_builder.graph.arch import find_architecture

SIZES: dict[str, Any] = {
    "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 96, "head_dim": 16, "rope_theta": 1_000_000.0,
    "max_position_embeddings": 131072,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "attn_factor": 0.75}


def write_gguf(path: Path, model: FakeCheckpoint) -> Path:
    """As llama.cpp's converter writes it: the checkpoint's rows as they lie."""
    config, kind = model.config, model.config["model_type"]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    if kind == "qwen3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if (rope := config.get("rope_scaling")) is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_attn_factors(rope["attn_factor"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-r1-qwen")
    writer.add_token_list(sorted(pre_tokenizers.ByteLevel.alphabet()))
    writer.add_token_types([1] * 256)
    writer.add_token_merges([])
    names = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[kind], config["num_hidden_layers"])
    for name, tensor in model.weights.items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "rope_scaling": YARN}], ids=["tied", "yarn"])
def test_a_file_gives_back_the_checkpoint_it_was_made_of(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    model = dense_checkpoint(kind, **SIZES, **changes)
    opened = open_checkpoint(str(write_gguf(tmp_path / "m.gguf", model)), cache=tmp_path)
    assert opened.weights.keys() == model.weights.keys()
    for name, tensor in model.weights.items():
        assert np.array_equal(opened.weights[name].float32(), tensor.array), name
    architecture = find_architecture(kind)
    assert opened.config["model_type"] == kind
    assert architecture.read(opened.config) == architecture.read(model.config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, "original_context_length"),
        ({"rope.scaling.type": "yarn", "rope.scaling.original_context_length": 64}, "scaling.factor"),
        ({"rope.scaling.attn_factor": 0.5}, "attn_factor, but its rope scaling is of type 'none'"),
        ({"rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor = 0.5"),
        ({"attention.sliding_window": 512}, "sliding_window = 512"),
    ],
)
def test_what_may_change_the_maths_is_refused(changes: dict[str, Any], says: str) -> None:
    metadata = {
        "block_count": 1, "embedding_length": 64, "feed_forward_length": 96, "attention.head_count": 4, "context_length": 512,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }  # fmt: skip
    metadata = {"general.architecture": "qwen3"} | {f"qwen3.{k}": v for k, v in (metadata | changes).items()}
    with pytest.raises(BuildError, match=says):
        read_config(metadata, vocab_size=10, tied=True, rope_factors=None)
