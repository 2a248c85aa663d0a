"""Opens a GGUF file as a checkpoint: header, names, tokenizer. Reads weights only when they are asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .checkpoint import Checkpoint
from .gguf_architectures import architecture_of, hugging_face_name, read_config
from .gguf_header import Header
from .gguf_parts import model_name, read_parts
from .gguf_tokenizer import read_vocabulary
from .sampling import recommended
from .tensor import BLOCKED, PLAIN, Tensor
from .token_ids import SILENT

_INCONSISTENT = "the file is inconsistent; fetch another"
_ROPE_FACTORS = "rope_freqs.weight"
_MOST_FACTORS = 1 << 16
_SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
# key of config.json -> the bias that tells it: the metadata says nothing of biases, the tensors do
_BIAS_FLAGS = {"attention_bias": ".self_attn.o_proj.bias", "mlp_bias": ".mlp.down_proj.bias"}


def open_gguf(path: Path, *, name: str | None = None) -> Checkpoint:
    """The checkpoint in the file `path`, under `name` (default: the file's).

    Raises:
        BuildError: the file is damaged, or something in it is not understood.
    """
    parts = read_parts(path)
    metadata = parts[0].header.metadata
    stored = {name: tensor for part in parts for name, tensor in _tensors(part.path, part.header).items()}
    row = architecture_of(metadata)
    vocabulary = read_vocabulary(metadata)
    if "token_embd.weight" not in stored:
        raise BuildError(f"{path} has no tensor token_embd.weight", "is it a language model's GGUF file?")
    if len(stored["token_embd.weight"].shape) != 2:
        raise BuildError(
            f"token_embd.weight of {path} is {list(stored['token_embd.weight'].shape)}, not a matrix", _INCONSISTENT
        )
    vocab_size = stored["token_embd.weight"].shape[0]
    if vocab_size < vocabulary.size:
        raise BuildError(f"{path} has {vocabulary.size} tokens but embeddings for {vocab_size}", _INCONSISTENT)
    factors = stored.pop(_ROPE_FACTORS, None)
    if factors and factors.size > _MOST_FACTORS:
        raise BuildError(f"{_ROPE_FACTORS} of {path} has {factors.size:,} numbers; heads have fewer", _INCONSISTENT)
    config = read_config(
        metadata,
        vocab_size=vocab_size,
        tied="output.weight" not in stored,
        rope_factors=factors.float32 if factors else None,
    )
    if config["num_hidden_layers"] > len(stored):
        raise BuildError(
            f"{path} says that it has {config['num_hidden_layers']:,} layers, and has {len(stored)} tensors", _INCONSISTENT
        )
    config |= vocabulary.token_ids

    weights: dict[str, Tensor] = {}
    if row.unpack:
        weights, stored = row.unpack(stored, config)
    for tensor in stored.values():
        named = hugging_face_name(row, tensor.name, config)
        if named is None:
            raise BuildError(
                f"tensor {tensor.name} {list(tensor.shape)} of {path} is not known for architecture {row.model_type}",
                "build from the model's Hugging Face folder or hub id instead",
            )
        weights[named[0]] = _renamed(tensor, *named)
    config |= {flag: True for flag, bias in _BIAS_FLAGS.items() if any(name.endswith(bias) for name in weights)}
    return Checkpoint(
        name=name or model_name(path),
        config=config,
        weights=weights,
        tokenizer_json=vocabulary.tokenizer_json,
        chat_template=vocabulary.chat_template,
        tool_template=metadata.get("tokenizer.chat_template.tool_use"),
        special_tokens=vocabulary.special_tokens,
        stop_token_ids=vocabulary.stop_token_ids,
        bos_token_id=vocabulary.token_ids.get("bos_token_id"),
        generation_config=_sampling(path, metadata),
        notes=() if vocabulary.stop_token_ids else (SILENT,),
        files=tuple(part.path for part in parts),
    )


def _tensors(path: Path, header: Header) -> dict[str, Tensor]:
    strange = sorted({(t.dtype, t.type_number) for t in header.tensors if t.dtype not in PLAIN and t.dtype not in BLOCKED})
    if strange:
        numbered = ", ".join(f"{name} (number {number})" for name, number in strange)
        raise BuildError(
            f"{path} holds tensors of type {numbered}; read are {', '.join([*PLAIN, *BLOCKED])}",
            "take a file of the model in one of these, such as its Q4_K_M, Q8_0 or BF16 file",
        )
    return {
        t.name: Tensor(name=t.name, shape=t.shape, dtype=t.dtype, path=path, offset=t.offset, nbytes=t.nbytes)
        for t in header.tensors
    }


def _renamed(tensor: Tensor, name: str, heads: int | None) -> Tensor:
    if heads and tensor.shape[0] % (2 * heads):
        raise BuildError(f"{tensor.name} has {tensor.shape[0]} rows, which {heads} heads do not share evenly", _INCONSISTENT)
    return Tensor(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        path=tensor.path,
        offset=tensor.offset,
        nbytes=tensor.nbytes,
        interleaved_heads=heads,
    )


def _sampling(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "general.sampling."
    values = {theirs: metadata.get(prefix + ours) for ours, theirs in _SAMPLING.items()}
    names = {theirs: f"the GGUF metadata has {prefix}{ours}" for ours, theirs in _SAMPLING.items()}
    return recommended(values, names=names, hint=f"correct it: `gguf-set-metadata {shlex.quote(str(path))} {prefix}KEY VALUE`")
