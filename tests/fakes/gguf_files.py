"""A tiny Llama as a GGUF file, written by the gguf package as llama.cpp's converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from tokenizers import pre_tokenizers

HEADS, KV_HEADS, DIM, WIDTH, INNER, LAYERS = 4, 2, 16, 64, 96, 2
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
BASE = len(TOKENS) - 4
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": LAYERS,
    "llama.context_length": 512,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
    "llama.rope.dimension_count": DIM,
}
TOKENIZER: dict[str, Any] = {
    "model": "gpt2", "pre": "smollm", "tokens": TOKENS, "token_type": [1] * BASE + [3, 3, 3, 4], "merges": ["h e"],
    "bos_token_id": BASE + 1, "eos_token_id": BASE + 2, "add_bos_token": False,
}  # fmt: skip
TOKENS.append("he")
TOKENIZER["token_type"] = [*TOKENIZER["token_type"], 1]


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp does to Q and K: of each head, the first half's rows and the second half's by turns."""
    out = []
    for head in np.split(rows, heads):
        first, second = np.split(head, 2)
        out += [row for pair in zip(first, second, strict=True) for row in pair]
    return np.array(out)


def llama_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Under Hugging Face names, in Hugging Face order."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(len(TOKENS), WIDTH), "model.norm.weight": matrix(WIDTH)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        weights |= {
            p + "input_layernorm.weight": matrix(WIDTH),
            p + "self_attn.q_proj.weight": matrix(HEADS * DIM, WIDTH),
            p + "self_attn.k_proj.weight": matrix(KV_HEADS * DIM, WIDTH),
            p + "self_attn.v_proj.weight": matrix(KV_HEADS * DIM, WIDTH),
            p + "self_attn.o_proj.weight": matrix(WIDTH, HEADS * DIM),
            p + "post_attention_layernorm.weight": matrix(WIDTH),
            p + "mlp.gate_proj.weight": matrix(INNER, WIDTH),
            p + "mlp.up_proj.weight": matrix(INNER, WIDTH),
            p + "mlp.down_proj.weight": matrix(WIDTH, INNER),
        }
    return weights


OURS = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf(
    path: Path,
    weights: dict[str, np.ndarray],
    *,
    dtype: str = "F32",
    metadata: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    raw: dict[str, np.ndarray] | None = None,
    alignment: int = 32,
) -> Path:
    """A GGUF file by the gguf package: `weights` renamed and interleaved as llama.cpp's converter does; matrices in `dtype`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    fields = METADATA | {f"tokenizer.ggml.{k}": v for k, v in (TOKENIZER | (tokenizer or {})).items()} | (metadata or {})
    for key, value in fields.items():
        if key == "general.architecture":
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for name, values in weights.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("model.layers."):
            _, _, i, part = stem.split(".", 3)
            ours = f"blk.{i}.{OURS[part]}.{kind}"
        else:
            ours = f"{OURS[stem]}.{kind}"
        heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else None
        values = interleave(values, heads) if heads else values
        stored = GGMLQuantizationType[dtype if values.ndim == 2 else "F32"]
        writer.add_tensor(ours, gguf.quantize(values, stored), raw_dtype=stored)
    for name, values in (raw or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
