"""Weights that lie in no safetensors file, as GGUF's blocks, or not as vLLM takes them, written into one, one at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from .precisions import STORED
from .widening import Weight

_TYPES: Mapping[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_ALIGNMENT = 8  # bytes, of the header


def write_weights(
    path: Path, weights: Mapping[str, Weight], dtype: str, tell: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Write `weights` into the file `path`, all of them as `dtype`.

    Args:
        tell: gets the weights that are written, of how many.
    """
    kind = np.dtype(_TYPES[dtype])
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in weights.items():
        begin, end = end, end + tensor.size * kind.itemsize
        entries[name] = {"dtype": STORED[dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for number, tensor in enumerate(weights.values()):
            tell(number, len(weights))
            file.write(tensor.float32().astype(kind).tobytes())
