"""Finds the tensors of safetensors files, one or many, from their headers alone. Reads no weights, knows no model."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from ..errors import BuildError
from .tensor import PLAIN, Tensor

INDEX = "model.safetensors.index.json"
_FETCH = "fetch the file again; the download may have been cut short"


def read_weights(folder: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """The tensors in `folder` and the files that hold them.

    Raises:
        BuildError: files are missing, cut short, to spare, or disagree with the index.
    """
    present = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if index.is_file():
        return _sharded(folder, index, present)
    if len(present) != 1:
        others = sorted(p.name for pattern in ("*.bin", "*.pth", "*.pt", "*.gguf") for p in folder.glob(pattern))
        if present:
            raise BuildError(
                f"{folder} has {len(present)} safetensors files ({_some([p.name for p in present])}) and no {INDEX}",
                f"fetch {INDEX} of the same model, or leave only the model's own file",
            )
        found = f"; it has {_some(others)}" if others else ""
        raise BuildError(
            f"{folder} has no safetensors file{found}", "weights are read from safetensors, or from one .gguf file"
        )
    return read_file(present[0]), (present[0],)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
        BuildError: it is damaged, or holds a type that is not read.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError(f"its header should have {length:,} bytes, the file has {size:,}")
            header = json.loads(file.read(length))
        tensors = [_tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BuildError(f"{path} is not a readable safetensors file: {error}", _FETCH) from error
    end = max((t.offset + t.nbytes for t in tensors), default=8 + length)
    if end != size:
        raise BuildError(f"{path} should have {end:,} bytes by its header, and has {size:,}", _FETCH)
    strange = sorted({t.dtype for t in tensors} - PLAIN.keys())
    if strange:
        first = next(t.name for t in tensors if t.dtype == strange[0])
        raise BuildError(
            f"{path} holds tensors of type {', '.join(strange)} (such as {first}); read are {', '.join(PLAIN)}",
            "take the model's BF16, F16, F32 or block-FP8 checkpoint",
        )
    return {t.name: t for t in tensors}


def _tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if dtype in PLAIN and end - begin != math.prod(shape) * PLAIN[dtype]:
        raise ValueError(f"tensor {name} {dtype} {list(shape)} should not have {end - begin:,} bytes")
    return Tensor(name=name, shape=shape, dtype=dtype, path=path, offset=start + begin, nbytes=end - begin)


def _sharded(folder: Path, index: Path, present: list[Path]) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    try:
        places: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        named: dict[str, set[str]] = {shard: set() for shard in sorted(set(places.values()))}
        for name, place in places.items():
            named[place].add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{index} is not a readable index: {error!r}", _FETCH) from error
    missing = [s for s in named if not (folder / s).is_file()]
    if missing:
        raise BuildError(f"{folder} lacks {len(missing)} of {len(named)} shards: {_some(missing)}", "fetch the missing files")
    spare = [p.name for p in present if p.name not in named]
    if spare:
        raise BuildError(
            f"{folder} has safetensors files that {INDEX} does not name: {_some(spare)}",
            "they may be of another model or version: move them away",
        )
    weights: dict[str, Tensor] = {}
    for shard, expected in named.items():
        held = read_file(folder / shard)
        if held.keys() != expected:
            raise BuildError(
                f"{folder / shard} and {INDEX} disagree about {_some(sorted(held.keys() ^ expected))}",
                "the files are of different versions; fetch them again",
            )
        weights |= held
    return weights, (index, *(folder / s for s in named))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
