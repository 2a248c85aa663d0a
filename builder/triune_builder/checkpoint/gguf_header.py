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

from ..errors import BuildError, quoted
from .files import regular_size

_HINT = "fetch the file again; pieces such as X.gguf.part1of2 are put together with `cat` first"
# What llama.cpp takes, or well above what any model has: a damaged file is found out before it takes memory or time.
_MOST_BYTES = 256 << 20  # of a header; the largest vocabularies take some 20 MB
_MOST_ELEMENTS = 1 << 22  # of all arrays together; the largest vocabularies have a third of it
_MOST_FIELDS, _MOST_TENSORS = 1 << 14, 1 << 17
_MOST_DIMENSIONS = 4
_MOST_NAME = 255  # bytes of a key or a tensor's name
_BIG_ENDIAN = (2 << 24, 3 << 24)  # versions, read the wrong way round
_TYPES = {kind.value: kind for kind in GGMLQuantizationType}
# Of files from before llama.cpp laid weights out for a processor when it loads them; nobody says how long their rows are.
_REMOVED = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip
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
    type_number: int  # ggml's
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
        BuildError: not a GGUF file, of an unknown version, cut short, or damaged in a way that its header shows.
    """
    size = regular_size(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Cursor(data).header()
    except (OSError, ValueError, KeyError, OverflowError, struct.error, UnicodeDecodeError) as error:
        raise BuildError(f"{path} is not a readable GGUF file: {error}", _HINT) from error
    end, last = 0, ""
    for tensor in sorted(header.tensors, key=lambda tensor: tensor.offset):
        if tensor.offset + tensor.nbytes > size:
            raise BuildError(
                f"{path} is cut short: it has {size:,} bytes, and tensor {tensor.name} should end at byte "
                f"{tensor.offset + tensor.nbytes:,}",
                _HINT,
            )
        if tensor.offset < end and tensor.nbytes:
            raise BuildError(f"{path} is damaged: its tensors {last} and {tensor.name} share bytes", _HINT)
        end, last = tensor.offset + tensor.nbytes, tensor.name
    return header


class _Cursor:
    """A place in the file that moves on as values are read. Numbers are little-endian."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at, self.elements = data, 0, 0

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise ValueError(f"it starts with {self.data[:4]!r}, not with b'GGUF'")
        self.at = 4
        version, tensor_count, field_count = self._scalar("I"), self._scalar("Q"), self._scalar("Q")
        if version in _BIG_ENDIAN:
            raise ValueError("it is big-endian; little-endian files are read, such as llama.cpp writes unless told otherwise")
        if version not in (2, 3):
            raise ValueError(f"its version is {version}; known: 2 and 3")
        for what, count, most in (("fields", field_count, _MOST_FIELDS), ("tensors", tensor_count, _MOST_TENSORS)):
            if count > most:
                raise ValueError(f"it says that it has {count:,} {what}; at most {most:,} are read")
        metadata: dict[str, Any] = {}
        for _ in range(field_count):
            key = self._string(_MOST_NAME)
            if key in metadata:
                raise ValueError(f"its key {key} is there twice")
            metadata[key] = self._value(self._scalar("I"))
        entries: dict[str, tuple[list[int], int, int]] = {}
        for _ in range(tensor_count):
            name = self._string(_MOST_NAME)
            if name in entries:
                raise ValueError(f"its tensor {name} is there twice")
            entries[name] = self._entry(name)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or isinstance(alignment, bool) or alignment < 1 or alignment & (alignment - 1):
            raise ValueError(f"its general.alignment is {quoted(alignment)}; a power of two is expected")
        start = -(-self.at // alignment) * alignment
        return Header(
            metadata=metadata, tensors=tuple(_stored(start, alignment, name, *entry) for name, entry in entries.items())
        )

    def _take(self, length: int) -> int:
        """Move on by `length` bytes; returns where they begin."""
        start, self.at = self.at, self.at + length
        if self.at > len(self.data):
            raise ValueError(f"it ends inside its header: {length:,} bytes at byte {start:,} are not there")
        if self.at > _MOST_BYTES:
            raise ValueError(f"its header has more than {_MOST_BYTES:,} bytes")
        return start

    def _scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self._take(struct.calcsize("<" + code)))
        return value

    def _string(self, most: int = _MOST_BYTES) -> str:
        length = self._scalar("Q")
        start = self._take(length)
        if length > most:
            raise ValueError(f"a name in it has {length:,} bytes, more than {most}")
        return self.data[start : self.at].decode("utf-8")

    def _value(self, type_id: int) -> Any:
        kind = GGUFValueType(type_id)
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind != GGUFValueType.ARRAY:
            return self._scalar(_SCALARS[kind])
        of, count = GGUFValueType(self._scalar("I")), self._scalar("Q")
        self.elements += count
        if self.elements > _MOST_ELEMENTS:
            raise ValueError(f"the arrays in it have {self.elements:,} elements; at most {_MOST_ELEMENTS:,} are read")
        if of == GGUFValueType.ARRAY:
            raise ValueError("it has an array of arrays")
        if of in _SCALARS:
            code = f"<{count}{_SCALARS[of]}"
            return list(struct.unpack_from(code, self.data, self._take(struct.calcsize(code))))
        return [self._string() for _ in range(count)]

    def _entry(self, name: str) -> tuple[list[int], int, int]:
        """Sizes, type and offset."""
        dimensions = self._scalar("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"its tensor {name} has {dimensions:,} dimensions; at most {_MOST_DIMENSIONS} are read")
        return [self._scalar("Q") for _ in range(dimensions)], self._scalar("I"), self._scalar("Q")


def _stored(start: int, alignment: int, name: str, sizes: list[int], type_id: int, offset: int) -> Stored:
    if type_id in _REMOVED:
        return Stored(
            name=name,
            shape=tuple(reversed(sizes)),
            dtype=_REMOVED[type_id],
            type_number=type_id,
            offset=start + offset,
            nbytes=0,
        )
    if type_id not in _TYPES:
        raise ValueError(f"its tensor {name} is of the type with number {type_id}, which is not known")
    kind = _TYPES[type_id]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if 0 in sizes or max(sizes, default=0) > 1 << 48:
        raise ValueError(f"tensor {name} has the sizes {sizes}")
    if math.prod(sizes) % block or (sizes and sizes[0] % block):
        raise ValueError(f"tensor {name} of {kind.name} has rows of {sizes[0] if sizes else 1}, not a multiple of {block}")
    if offset % alignment:
        raise ValueError(f"tensor {name} begins at byte {offset:,} of the data, not a multiple of {alignment}")
    return Stored(
        name=name,
        shape=tuple(reversed(sizes)),
        dtype=kind.name,
        type_number=type_id,
        offset=start + offset,
        nbytes=math.prod(sizes) // block * block_bytes,
    )
