"""Finds the tensors of safetensors files, one or many, from their headers alone. Reads no weights, knows no model."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import BuildError, quoted
from .files import CONFIG_BYTES, check_parsed, exists, parse_object, read_text, regular_size
from .tensor import INTEGERS, PLAIN, Tensor

_MOST_BYTES = 100_000_000  # of a header, as the format's own library has it
_MOST_DIMENSIONS = 8
_SIZES = PLAIN | INTEGERS  # dtype -> bytes an element
INDEX = "model.safetensors.index.json"
_FETCH = "fetch the file again; the download may have been cut short"
_POINTER = b"version https://git-lfs"  # what a clone without Git LFS has in a large file's place
_PULL = "in the clone that it is of: `git lfs install`, then `git lfs pull`; or fetch the file itself"
_CONVERT = (
    "weights are read from safetensors, or from one .gguf file; others that transformers reads are converted by "
    "`transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)`"
)


def read_weights(folder: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """The tensors in `folder` and the files that hold them.

    Raises:
        BuildError: files are missing, cut short, to spare, or disagree with the index.
    """
    present = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if exists(index):
        return _sharded(folder, index, present)
    if len(present) != 1:
        others = sorted(p.name for pattern in ("*.bin", "*.pth", "*.pt", "*.gguf") for p in folder.glob(pattern))
        if present:
            raise BuildError(
                f"{folder} has {len(present)} safetensors files ({_some([p.name for p in present])}) and no {INDEX}",
                f"fetch {INDEX} of the same model, or leave only the model's own file",
            )
        found = f"; it has {_some(others)}" if others else ""
        raise BuildError(f"{folder} has no safetensors file{found}", _CONVERT)
    return read_file(present[0]), (present[0],)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file.

    Raises:
        BuildError: it is damaged, or holds a type that is not read.
    """
    size = regular_size(path)
    try:
        with path.open("rb") as file:
            begin = file.read(max(8, len(_POINTER)))
            if begin == _POINTER:
                raise BuildError(f"{path} has no weights: it is a pointer of Git LFS to them", _PULL)
            if len(begin) < 8:
                raise ValueError(f"it has {size} bytes")
            (length,) = struct.unpack("<Q", begin[:8])
            file.seek(8)
            if length > size - 8:
                raise ValueError(f"its header should have {length:,} bytes, the file has {size:,}")
            if length > _MOST_BYTES:
                raise ValueError(f"its header has {length:,} bytes; at most {_MOST_BYTES:,} are read")
            text = file.read(length).decode("utf-8")
        check_parsed(text)
        header = json.loads(text, object_pairs_hook=_once)
        tensors = [_tensor(path, name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]
        end = _contiguous(tensors, 8 + length)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise BuildError(f"{path} is not a readable safetensors file: {error}", _FETCH) from error
    if end != size:
        raise BuildError(f"{path} should have {end:,} bytes by its header, and has {size:,}", _FETCH)
    strange = sorted({t.dtype for t in tensors} - _SIZES.keys())
    if strange:
        first = next(t.name for t in tensors if t.dtype == strange[0])
        raise BuildError(
            f"{path} holds tensors of type {', '.join(strange)} (such as {first}); read are {', '.join(PLAIN)}",
            "take the model's BF16, F16, F32 or block-FP8 checkpoint",
        )
    return {t.name: t for t in tensors}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header, whose names are there once each."""
    found = dict(pairs)
    if len(found) != len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"its header has {quoted(name)} twice")
    return found


def _tensor(path: Path, name: str, entry: dict[str, Any], start: int) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    sizes = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
    if not isinstance(dtype, str) or not sizes or not all(_is_size(n) for n in (*shape, begin, end)) or begin > end:
        raise ValueError(f"tensor {quoted(name)} is {quoted(entry, 160)}")
    if dtype in _SIZES and end - begin != math.prod(shape) * _SIZES[dtype]:
        raise ValueError(f"tensor {quoted(name)} {dtype} {shape} should not have {end - begin:,} bytes")
    return Tensor(name=name, shape=tuple(shape), dtype=dtype, path=path, offset=start + begin, nbytes=end - begin)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _contiguous(tensors: list[Tensor], start: int) -> int:
    """The end of the last tensor; each must begin where another ends, as the format demands."""
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            what = "shares bytes with another" if tensor.offset < end else "has bytes before it that are no tensor's"
            raise ValueError(f"tensor {quoted(tensor.name)} {what}")
        end += tensor.nbytes
    return end


def _sharded(folder: Path, index: Path, present: list[Path]) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    places = parse_object(index, read_text(index, CONFIG_BYTES)).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BuildError(f"{index} is not a readable index: it has no weight_map", _FETCH)
    strange = [place for place in places.values() if not _is_name(place)]
    if strange:
        raise BuildError(
            f"{index} names the file {quoted(strange[0])}; the plain name of a .safetensors file beside it is expected", _FETCH
        )
    named: dict[str, set[str]] = {shard: set() for shard in sorted(set(places.values()))}
    for name, place in places.items():
        named[place].add(name)
    missing = [s for s in named if not exists(folder / s)]
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


def _is_name(place: Any) -> bool:
    """Whether it is a file's name and no path: a shard lies beside the index."""
    return isinstance(place, str) and place.endswith(".safetensors") and place.isprintable() and not {"/", "\\"} & set(place)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
