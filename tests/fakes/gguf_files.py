"""A tiny Llama as a GGUF file, written by the gguf package as llama.cpp's converter does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGMLQuantizationType
from tokenizers import pre_tokenizers

from .k_quants import k_quantized

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


# For `wide_weights`: rows that blocks of 256 divide.
WIDE = {"llama.embedding_length": 256, "llama.feed_forward_length": 256, "llama.rope.dimension_count": 64}


def wide_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """As `llama_weights`, of the sizes in `WIDE`."""
    return llama_weights(seed, width=256, inner=256, dim=64)


def llama_weights(seed: int = 0, *, width: int = WIDTH, inner: int = INNER, dim: int = DIM) -> dict[str, np.ndarray]:
    """Under Hugging Face names, in Hugging Face order."""
    random = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(len(TOKENS), width), "model.norm.weight": matrix(width)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        weights |= {
            p + "input_layernorm.weight": matrix(width),
            p + "self_attn.q_proj.weight": matrix(HEADS * dim, width),
            p + "self_attn.k_proj.weight": matrix(KV_HEADS * dim, width),
            p + "self_attn.v_proj.weight": matrix(KV_HEADS * dim, width),
            p + "self_attn.o_proj.weight": matrix(width, HEADS * dim),
            p + "post_attention_layernorm.weight": matrix(width),
            p + "mlp.gate_proj.weight": matrix(inner, width),
            p + "mlp.up_proj.weight": matrix(inner, width),
            p + "mlp.down_proj.weight": matrix(width, inner),
        }
    return weights


OURS = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def as_q4_k_m(name: str, values: np.ndarray) -> tuple[np.ndarray, GGMLQuantizationType]:
    """The mixture of llama.cpp's Q4_K_M: values, half of the down projections and the head in six bits, others in four."""
    if values.ndim < 2:
        return values, GGMLQuantizationType.F32
    return k_quantized(values, "Q6_K" if any(part in name for part in ("attn_v", "blk.0.ffn_down", "token_embd")) else "Q4_K")


def write_gguf(
    path: Path,
    weights: dict[str, np.ndarray],
    *,
    dtype: str = "F32",
    metadata: dict[str, Any] | None = None,
    tokenizer: dict[str, Any] | None = None,
    raw: dict[str, np.ndarray] | None = None,
    alignment: int = 32,
    split: int = 0,
    quantize: Callable[[str, np.ndarray], tuple[np.ndarray, GGMLQuantizationType]] | None = None,
) -> Path:
    """A GGUF file by the gguf package: `weights` renamed and interleaved as llama.cpp's converter does; matrices in `dtype`.

    Args:
        split: the most tensors of a file, of which there are as many as it takes; 0: one file.
        quantize: makes bytes and type of a tensor of that name, in place of `dtype`.
    """
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
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
        if quantize is not None:
            raw_bytes, stored = quantize(ours, values)
        else:
            stored = GGMLQuantizationType[dtype if values.ndim == 2 else "F32"]
            raw_bytes = gguf.quantize(values, stored)
        writer.add_tensor(ours, raw_bytes, raw_dtype=stored)
    for name, values in (raw or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
