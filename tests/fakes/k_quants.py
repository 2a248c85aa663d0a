"""Quantizes to llama.cpp's K-quants, number by number from their published layout; shares no code with the reader.

Rounding is plain: llama.cpp searches for better scales, which changes what a file holds and not what it means.
"""

from __future__ import annotations

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def k_quantized(values: NDArray[np.float32], dtype: str) -> tuple[Bytes, GGMLQuantizationType]:
    """Rows of `values` [rows, columns], a multiple of 256, in Q4_K, Q5_K or Q6_K."""
    make = {"Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}[dtype]
    blocks = [make(block) for block in values.reshape(-1, 256).astype(np.float64)]
    return np.frombuffer(b"".join(blocks), np.uint8).reshape(len(values), -1), GGMLQuantizationType[dtype]


def _asymmetric(block: NDArray[np.float64], most: int) -> tuple[bytes, NDArray[np.uint8]]:
    """The 16 bytes of scales and minima, and codes [8, 32]."""
    runs = block.reshape(8, 32)
    low = np.maximum(-runs.min(axis=1), 0)
    scale = (runs.max(axis=1) + low) / most
    d, dmin = (np.float16(max(part.max(), 1e-6) / 63) for part in (scale, low))
    factors, minima = (np.rint(part / float(whole)).clip(0, 63).astype(int) for part, whole in ((scale, d), (low, dmin)))
    packed = bytearray(12)
    for j in range(4):
        packed[j] = factors[j] | (factors[j + 4] >> 4) << 6
        packed[j + 4] = minima[j] | (minima[j + 4] >> 4) << 6
        packed[j + 8] = (factors[j + 4] & 15) | (minima[j + 4] & 15) << 4
    steps = np.maximum(factors * float(d), 1e-30)[:, None]
    codes = np.rint((runs + (minima * float(dmin))[:, None]) / steps).clip(0, most).astype(np.uint8)
    return d.tobytes() + dmin.tobytes() + bytes(packed), codes


def _pairs(codes: NDArray[np.uint8]) -> bytes:
    """Nibbles of runs [8, 32]: two neighbouring runs share 32 bytes."""
    return b"".join((codes[2 * i] & 15 | (codes[2 * i + 1] & 15) << 4).tobytes() for i in range(4))


def _q4_k(block: NDArray[np.float64]) -> bytes:
    head, codes = _asymmetric(block, 15)
    return head + _pairs(codes)


def _q5_k(block: NDArray[np.float64]) -> bytes:
    head, codes = _asymmetric(block, 31)
    high = np.zeros(32, np.uint8)
    for run in range(8):
        high |= (codes[run] >> 4) << run
    return head + high.tobytes() + _pairs(codes)


def _q6_k(block: NDArray[np.float64]) -> bytes:
    runs = block.reshape(16, 16)
    scale = np.abs(runs).max(axis=1) / 31
    d = np.float16(max(scale.max(), 1e-6) / 127)
    factors = np.rint(scale / float(d)).clip(0, 127).astype(np.int8)
    steps = np.maximum(factors * float(d), 1e-30)[:, None]
    codes = (np.rint(runs / steps).clip(-32, 31) + 32).astype(np.uint8).reshape(2, 4, 32)
    low = b"".join((half[i] & 15 | (half[i + 2] & 15) << 4).tobytes() for half in codes for i in range(2))
    high = b"".join((half[0] >> 4 | half[1] >> 4 << 2 | half[2] >> 4 << 4 | half[3] >> 4 << 6).tobytes() for half in codes)
    return low + high + factors.tobytes() + d.tobytes()
