"""ONNX Runtime's values over memory of our own, and the names of their types. Copies nothing, allocates nothing on a device."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import onnxruntime

_CPU, _CUDA = 1, 2  # DLPack's numbers of devices
_INT, _UINT, _FLOAT, _BFLOAT, _FLOAT8E4M3FN = 0, 1, 2, 4, 10  # and of kinds of numbers


class ElementType(NamedTuple):
    """A type of numbers."""

    onnx: int  # its number in ONNX
    kind: int  # in DLPack
    bits: int


TYPES = {
    "float16": ElementType(10, _FLOAT, 16),
    "bfloat16": ElementType(16, _BFLOAT, 16),
    "float": ElementType(1, _FLOAT, 32),
    "float32": ElementType(1, _FLOAT, 32),
    "float8e4m3fn": ElementType(17, _FLOAT8E4M3FN, 8),
    "float8_e4m3fn": ElementType(17, _FLOAT8E4M3FN, 8),
    "uint8": ElementType(2, _UINT, 8),
    "int8": ElementType(3, _INT, 8),
    "int32": ElementType(6, _INT, 32),
    "int64": ElementType(7, _INT, 64),
}  # as ONNX calls them in lower case, and as NumPy and ml_dtypes do


class _Type(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Managed(ctypes.Structure):
    """DLPack's DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int),
        ("device_number", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("type", _Type),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),  # none: one row behind the other
        ("offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


def value_at(address: int, shape: Sequence[int], dtype: str, *, cuda: bool = True) -> onnxruntime.OrtValue:
    """A value whose numbers lie at `address`, which must stay for as long as the value is used.

    Args:
        dtype: of `TYPES`.
        cuda: on the first GPU; else on the host.

    Raises:
        RuntimeError: this version of ONNX Runtime knows no values of that type over memory of others.
    """
    element, libc = TYPES[dtype], ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    # In one block of C's own, so that C's own `free` is what gives it back: whoever has the value calls that when it is over.
    block = libc.malloc(ctypes.sizeof(_Managed) + 8 * len(shape))
    sizes = block + ctypes.sizeof(_Managed)
    (ctypes.c_int64 * len(shape)).from_address(sizes)[:] = list(shape)
    managed = _Managed.from_address(block)
    managed.data, managed.offset, managed.strides, managed.context = address, 0, None, None
    managed.device, managed.device_number = _CUDA if cuda else _CPU, 0
    managed.type = _Type(element.kind, element.bits, 1)
    managed.dimensions, managed.shape = len(shape), sizes
    managed.deleter = ctypes.cast(libc.free, ctypes.c_void_p)
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return onnxruntime.OrtValue.from_dlpack(make(block, b"dltensor", None))
