"""Reads the header of a GGUF file (versions 2 and 3): its metadata and where its tensors lie. Reads no weights.

The `gguf` package's reader holds several array objects for every string; for a vocabulary that is hundreds of megabytes
and many seconds. Its tables of types are used, and the tests compare with it.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from ..errors import BuildError

_HINT = "fetch the file again; is it a .gguf file of one piece?"
_SCALARS = {
    GGUFValueType.UINT8: "B", GGUFValueType.INT8: "b", GGUFValueType.UINT16: "H", GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I", GGUFValueType.INT32: "i", GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT32: "f", GGUFValueType.FLOAT64: "d", GGUFValueType.BOOL: "?",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One tensor's entry."""

    name: str
    shape: tuple[int, ...]  # slowest axis first, as NumPy has it
    dtype: str  # ggml's name: F32, Q4_1, ...
    offset: int  # bytes from the start of the file
    nbytes: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything in a GGUF file but the weights."""

    metadata: dict[str, Any]
    tensors: tuple[Stored, ...]


def read_header(path: Path) -> Header:
    """The header of `path`.

    Raises:
        BuildError: not a GGUF file, of an unknown version, or cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Cursor(data).header()
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise BuildError(f"{path} is not a readable GGUF file: {error}", _HINT) from error
    size = path.stat().st_size
    for tensor in header.tensors:
        if tensor.offset + tensor.nbytes > size:
            raise BuildError(
                f"{path} is cut short: it has {size:,} bytes, and tensor {tensor.name} should end at byte "
                f"{tensor.offset + tensor.nbytes:,}",
                _HINT,
            )
    return header


class _Cursor:
    """A place in the file that moves on as values are read. Numbers are little-endian."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise ValueError(f"it starts with {self.data[:4]!r}, not with b'GGUF'")
        self.at = 4
        version, tensor_count, field_count = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; known: 2 and 3 (little-endian)")
        metadata = {self._string(): self._value(self._scalar("I")) for _ in range(field_count)}
        entries = [self._entry() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        start = -(-self.at // alignment) * alignment
        return Header(metadata=metadata, tensors=tuple(_stored(start, *entry) for entry in entries))

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def _string(self) -> str:
        length = self._scalar("Q")
        if self.at + length > len(self.data):
            raise ValueError(f"it ends inside a string of {length:,} bytes at byte {self.at:,}")
        self.at += length
        return self.data[self.at - length : self.at].decode("utf-8")

    def _value(self, type_id: int) -> Any:
        kind = GGUFValueType(type_id)
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind != GGUFValueType.ARRAY:
            return self._scalar(_SCALARS[kind])
        of, count = GGUFValueType(self._scalar("I")), self._scalar("Q")
        if of in _SCALARS:
            code = f"<{count}{_SCALARS[of]}"
            values = list(struct.unpack_from(code, self.data, self.at))
            self.at += struct.calcsize(code)
            return values
        return [self._value(of) for _ in range(count)]

    def _entry(self) -> tuple[str, list[int], int, int]:
        name = self._string()
        sizes = [self._scalar("Q") for _ in range(self._scalar("I"))]
        return name, sizes, self._scalar("I"), self._scalar("Q")


def _stored(start: int, name: str, sizes: list[int], type_id: int, offset: int) -> Stored:
    kind = GGMLQuantizationType(type_id)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if math.prod(sizes) % block or (sizes and sizes[0] % block):
        raise ValueError(f"tensor {name} of {kind.name} has rows of {sizes[0]}, not a multiple of {block}")
    return Stored(
        name=name,
        shape=tuple(reversed(sizes)),
        dtype=kind.name,
        offset=start + offset,
        nbytes=math.prod(sizes) // block * block_bytes,
    )
