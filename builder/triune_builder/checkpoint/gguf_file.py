"""Opens a GGUF file as a checkpoint: header, names, tokenizer. Reads weights only when they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BuildError
from .checkpoint import Checkpoint
from .gguf_architectures import architecture_of, hugging_face_name, read_config
from .gguf_header import Header, read_header
from .gguf_tokenizer import read_vocabulary
from .tensor import BLOCKED, PLAIN, Tensor

_ROPE_FACTORS = "rope_freqs.weight"
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "penalty_repeat": "repetition_penalty"}


def open_gguf(path: Path, *, name: str | None = None) -> Checkpoint:
    """The checkpoint in the file `path`, under `name` (default: the file's).

    Raises:
        BuildError: the file is damaged, or something in it is not understood.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("split.count", 1) > 1:
        raise BuildError(
            f"{path} is part {metadata.get('split.no', 0) + 1} of {metadata['split.count']}; only whole files are read",
            "merge the parts with llama.cpp's `llama-gguf-split --merge`",
        )
    stored = _tensors(path, header)
    row = architecture_of(metadata)
    vocabulary = read_vocabulary(metadata)
    if "token_embd.weight" not in stored:
        raise BuildError(f"{path} has no tensor token_embd.weight", "is it a language model's GGUF file?")
    vocab_size = stored["token_embd.weight"].shape[0]
    if vocab_size < vocabulary.size:
        raise BuildError(
            f"{path} has {vocabulary.size} tokens but embeddings for {vocab_size}", "the file is inconsistent; fetch another"
        )
    factors = stored.pop(_ROPE_FACTORS, None)
    config = read_config(
        metadata,
        vocab_size=vocab_size,
        tied="output.weight" not in stored,
        rope_factors=factors.float32 if factors else None,
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
    return Checkpoint(
        name=name or path.stem,
        config=config,
        weights=weights,
        tokenizer_json=vocabulary.tokenizer_json,
        chat_template=vocabulary.chat_template,
        tool_template=metadata.get("tokenizer.chat_template.tool_use"),
        special_tokens=vocabulary.special_tokens,
        stop_token_ids=vocabulary.stop_token_ids,
        bos_token_id=vocabulary.token_ids.get("bos_token_id"),
        generation_config=_sampling(metadata),
        files=(path,),
    )


def _tensors(path: Path, header: Header) -> dict[str, Tensor]:
    strange = sorted({t.dtype for t in header.tensors} - PLAIN.keys() - BLOCKED.keys())
    if strange:
        raise BuildError(
            f"{path} holds tensors of type {', '.join(strange)}; read are {', '.join([*PLAIN, *BLOCKED])}",
            "take the model's Q8_0, Q4_1, Q4_0, F16 or BF16 file",
        )
    return {
        t.name: Tensor(name=t.name, shape=t.shape, dtype=t.dtype, path=path, offset=t.offset, nbytes=t.nbytes)
        for t in header.tensors
    }


def _renamed(tensor: Tensor, name: str, heads: int | None) -> Tensor:
    if heads and tensor.shape[0] % (2 * heads):
        raise BuildError(
            f"{tensor.name} has {tensor.shape[0]} rows, which {heads} heads do not share evenly", "the file is inconsistent"
        )
    return Tensor(
        name=name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        path=tensor.path,
        offset=tensor.offset,
        nbytes=tensor.nbytes,
        interleaved_heads=heads,
    )


def _sampling(metadata: dict[str, Any]) -> dict[str, Any]:
    prefix = "general.sampling."
    return {theirs: metadata[prefix + ours] for ours, theirs in _SAMPLING.items() if prefix + ours in metadata}
