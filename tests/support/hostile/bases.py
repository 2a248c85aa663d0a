"""Small checkpoints as models are published; the fuzzer damages them. Made once, with the tests' own writers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fakes.gguf_files import TOKENS, WIDE, as_q4_k_m, llama_weights, wide_weights, write_gguf
from fakes.spellings import every
from fakes.tiny_deepseek import tiny_checkpoint as tiny_deepseek
from fakes.tiny_deepseek import tiny_weights
from fakes.tiny_dense import YARN, dense_checkpoint
from fakes.tiny_folders import write_folder
from fakes.tiny_llama import FakeCheckpoint

ROOT = Path(__file__).parents[3]
GGUF = "model.gguf"
Files = Mapping[str, bytes]  # name -> content
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MORE: dict[str, Any] = {  # what publishers put beside config.json
    "generation_config.json": {
        "bos_token_id": 0,
        "eos_token_id": [1, 2],
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "repetition_penalty": 1.05,
        "transformers_version": "4.46.3",
    },
    "tokenizer_config.json": {
        "add_bos_token": True,
        "bos_token": {"__type": "AddedToken", "content": "a", "lstrip": False},
        "eos_token": "b",
        "pad_token": None,
        "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": _CHATML,
        "added_tokens_decoder": {"0": {"content": "a", "special": True}},
        "extra_special_tokens": {"image_token": "c"},
    },
    "special_tokens_map.json": {"bos_token": "a", "eos_token": {"content": "b", "lstrip": False}, "sep_token": "c"},
}
_NANO: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}


@cache
def bases() -> dict[str, Files]:
    """Every base by its name: a GGUF file under `GGUF` alone, or the files of a folder."""
    sizes: dict[str, Any] = {"head_dim": 16, "hidden_size": 64, "intermediate_size": 96}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        deepseek = {"num_hidden_layers": 2, "n_routed_experts": 4, "n_group": 2, "topk_group": 1}
        _with_more(write_folder(root / "llama", dense_checkpoint("llama", **sizes), "BF16"))
        _with_more(write_folder(root / "qwen2", dense_checkpoint("qwen2", **sizes, rope_scaling=YARN), "F32", shards=3))
        write_folder(root / "qwen3", dense_checkpoint("qwen3", **sizes, num_hidden_layers=1), "F16")
        write_folder(root / "mistral", dense_checkpoint("mistral", **sizes, sliding_window=7), "BF16", shards=2)
        write_folder(root / "deepseek", tiny_deepseek(**deepseek), "BF16")
        write_folder(root / "deepseek-fp8", tiny_deepseek(**deepseek, num_nextn_predict_layers=1), "F8_E4M3", shards=2)
        for form in ("GPTQ", "AWQ", "W4A16", "NF4"):
            write_folder(root / form.lower(), dense_checkpoint("qwen2", **sizes, num_hidden_layers=1), form)
        _pieces(_with_more(write_folder(root / "pieces", dense_checkpoint("llama", **sizes, vocab_size=320), "F32")))
        (root / "gguf").mkdir()
        write_gguf(
            root / "gguf" / GGUF,
            llama_weights(),
            dtype="Q8_0",
            metadata={
                "tokenizer.chat_template": _CHATML,
                "general.name": "tiny",
                "general.sampling.temp": 0.6,
                "llama.rope.scaling.type": "linear",
                "llama.rope.scaling.factor": 2.0,
            },
        )
        (root / "gguf-q4").mkdir()
        same = {"rope_freqs.weight": np.ones(8, np.float32)}  # Llama 3's scaling, by nothing
        write_gguf(root / "gguf-q4" / GGUF, llama_weights(1), dtype="Q4_0", raw=same)
        (root / "gguf-k").mkdir()
        write_gguf(root / "gguf-k" / GGUF, wide_weights(3), metadata=WIDE, quantize=as_q4_k_m)
        for dtype in ("Q5_1", "MXFP4"):
            folder = root / f"gguf-{dtype.lower()}"
            folder.mkdir()
            write_gguf(folder / GGUF, llama_weights(4), dtype=dtype)
        (root / "gguf-pieces").mkdir()
        pieces = {"model": "llama", "scores": [-float(i) for i in range(len(TOKENS))], "unknown_token_id": 0}
        write_gguf(root / "gguf-pieces" / GGUF, llama_weights(2), dtype="F16", tokenizer=pieces)
        _nano(root / "r1-nano")
        return {folder.name: _files(folder) for folder in sorted(root.iterdir())}


def _with_more(folder: Path) -> Path:
    for name, value in _MORE.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def _pieces(folder: Path) -> Path:
    """With SentencePiece's tokenizer, and a template in a file of its own."""
    (folder / "tokenizer.json").write_text(every()["llama"].to_str())
    (folder / "chat_template.jinja").write_text(_CHATML)
    return folder


def _nano(folder: Path) -> None:
    """The files of r1-nano, with a smaller model."""
    published = ROOT / "models" / "r1-nano" / "checkpoint"
    config = json.loads((published / "config.json").read_text()) | _NANO
    write_folder(folder, FakeCheckpoint(config=config, weights=tiny_weights(config), tokenizer_json=""), "BF16")
    for path in published.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (folder / path.name).write_bytes(path.read_bytes())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
