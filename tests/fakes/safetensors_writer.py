"""Writes safetensors files byte by byte, also ones whose numbers are a hole in the file; shares no code with the reader."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

INDEX = "model.safetensors.index.json"
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1, "I32": 4, "I64": 8}
_NAMES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "uint8": "U8", "int8": "I8",
    "int32": "I32", "int64": "I64",
}  # fmt: skip

Shape = tuple[str, tuple[int, ...]]  # dtype and shape of a tensor


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], *, pad: int = 8) -> Path:
    """One file; the data begin at a multiple of `pad` bytes, or with 1 at an odd number of them."""
    shapes = {name: (_NAMES[str(array.dtype)], array.shape) for name, array in tensors.items()}
    path.write_bytes(_header(shapes, pad) + b"".join(array.tobytes() for array in tensors.values()))
    return path


def write_hollow(folder: Path, shapes: Mapping[str, Shape], shards: int) -> None:
    """Files with right headers and no numbers, and their index; they take almost no disk."""
    names = list(shapes)
    places = {}
    for number in range(shards):
        shard = f"model-{number + 1:05d}-of-{shards:06d}.safetensors" if shards > 1 else "model.safetensors"
        held = {name: shapes[name] for name in names[number * len(names) // shards : (number + 1) * len(names) // shards]}
        header = _header(held, 8)
        with (folder / shard).open("wb") as file:
            file.write(header)
            file.truncate(len(header) + sum(_size(shape) for shape in held.values()))
        places |= dict.fromkeys(held, shard)
    if shards > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def bf16(values: NDArray[np.float32]) -> NDArray[Any]:
    return values.astype(ml_dtypes.bfloat16)


def to_fp8(values: NDArray[np.float32], block: Sequence[int]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Codes and block scales of a matrix, written with plain loops over the blocks."""
    rows, columns = values.shape
    codes = np.empty(values.shape, ml_dtypes.float8_e4m3fn)
    scale = np.empty((math.ceil(rows / block[0]), math.ceil(columns / block[1])), np.float32)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            area = slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1])
            scale[i, j] = max(float(np.abs(values[area]).max()), 1e-12) / 448
            codes[area] = (values[area] / scale[i, j]).astype(ml_dtypes.float8_e4m3fn)
    return codes, scale


def _header(shapes: Mapping[str, Shape], pad: int) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + _size((dtype, shape))
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * ((1 + len(text)) % 2 if pad == 1 else -(8 + len(text)) % pad)
    return struct.pack("<Q", len(text)) + text


def _size(shape: Shape) -> int:
    return SIZES[shape[0]] * math.prod(shape[1])
