"""Tiny checkpoints as folders on disk, in the forms that models are published in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .packed_weights import FORMS, packed_form
from .safetensors_writer import INDEX, bf16, to_fp8, write_tensors
from .tiny_llama import FakeCheckpoint, FakeTensor

BLOCK = (16, 24)  # divides few of the tiny sizes
_FLOAT = ("embed_tokens", "lm_head", "norm", "mlp.gate.")  # what stays out of FP8, and of small integers


def write_folder(folder: Path, checkpoint: FakeCheckpoint, form: str = "BF16", *, shards: int = 1, pad: int = 8) -> Path:
    """`checkpoint` in the form BF16, F16, F32, F8_E4M3 or one of `FORMS`; correction biases are F32 in all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(checkpoint.config)
    if form == "F8_E4M3":
        config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(BLOCK)}
    if form in FORMS:
        config["quantization_config"] = FORMS[form]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer_json)
    stored = {key: value for name, tensor in checkpoint.weights.items() for key, value in _in_form(name, tensor, form).items()}
    names, places = list(stored), {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
        held = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        write_tensors(folder / shard, {name: stored[name] for name in held}, pad=pad)
        places |= dict.fromkeys(held, shard)
    if shards > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    return folder


def rounded(checkpoint: FakeCheckpoint, values: Mapping[str, NDArray[np.float32]]) -> FakeCheckpoint:
    """The same model with other numbers."""
    fields = {name: getattr(checkpoint, name) for name in checkpoint.__dataclass_fields__}
    return FakeCheckpoint(**(fields | {"weights": {name: FakeTensor(array) for name, array in values.items()}}))


def _in_form(name: str, tensor: FakeTensor, form: str) -> dict[str, NDArray[Any]]:
    array = tensor.array
    if form == "F32" or name.endswith("correction_bias"):
        return {name: array}
    if form == "F16":
        return {name: array.astype(np.float16)}
    if form == "F8_E4M3" and array.ndim == 2 and not any(part in name for part in _FLOAT):
        codes, scale = to_fp8(array, BLOCK)
        return {name: codes, f"{name}_scale_inv": scale}
    if form in FORMS and array.ndim == 2 and not any(part in name for part in _FLOAT):
        return packed_form(form, name.removesuffix(".weight"), array)
    return {name: bf16(array)}
