"""Block formats of GGUF with 256 numbers a block and scales inside it (K-quants and IQ4_XS), as ggml lays them out."""

from __future__ import annotations

import numpy as np

from .block_types import NONLINEAR, BlockType, Bytes, Floats, Unpacked, half, nibbles, shifted

SUPER_BLOCK = 256


def _quarters(packed: Bytes, mask: int = 3) -> Bytes:
    """Pairs of bits [blocks, 64] as codes [blocks, 256]: of each 32 bytes the lowest pairs first."""
    return shifted(packed.reshape(len(packed), -1, 32), range(0, 8, 2), mask).reshape(len(packed), SUPER_BLOCK)


def _q2_k(blocks: Bytes) -> Unpacked:
    """Scale and minimum of 16 numbers are a nibble each, times those of the block."""
    scale, minimum = half(blocks[:, None, 80:82]), half(blocks[:, None, 82:84])
    factors = blocks[:, :16]
    codes = _quarters(blocks[:, 16:80]).reshape(len(blocks), 16, 16)
    return codes, scale * _floats(factors & np.uint8(15)), -(minimum * _floats(factors >> np.uint8(4)))


def _q3_k(blocks: Bytes) -> Unpacked:
    """Codes of -4..3, the third bit in a mask; scales of six bits around 32: the lower four bits in 8 bytes, then the upper."""
    third = shifted(blocks[:, :32], range(8), 1).reshape(len(blocks), SUPER_BLOCK)
    codes = (_quarters(blocks[:, 32:96]) | third << np.uint8(2)).astype(np.int8) - np.int8(4)
    factors = nibbles(blocks[:, 96:104]) | shifted(blocks[:, 104:108], range(0, 8, 2), 3).reshape(-1, 16) << np.uint8(4)
    scale = half(blocks[:, None, 108:110]) * (_floats(factors) - np.float32(32))
    return codes.reshape(len(blocks), 16, 16), scale, None


def _scales_and_minima(blocks: Bytes) -> tuple[Floats, Floats]:
    """[blocks, 8] each, of the 16 bytes that Q4_K and Q5_K begin with: two float16, and eight pairs of six bits.

    Four bytes hold the first four scales, four the first four minima, each in its lower six bits; their upper two are the
    upper bits of the last four scales and minima, whose lower four bits are the nibbles of the last four bytes.
    """
    scales, minima, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    late_scales = rest & np.uint8(15) | scales >> np.uint8(6) << np.uint8(4)
    late_minima = rest >> np.uint8(4) | minima >> np.uint8(6) << np.uint8(4)
    factors = np.concatenate([scales & np.uint8(63), late_scales], axis=1)
    offsets = np.concatenate([minima & np.uint8(63), late_minima], axis=1)
    return half(blocks[:, None, :2]) * _floats(factors), -(half(blocks[:, None, 2:4]) * _floats(offsets))


def _q4_k(blocks: Bytes) -> Unpacked:
    codes = shifted(blocks[:, 16:].reshape(len(blocks), 4, 32), range(0, 8, 4), 15)
    return codes.reshape(len(blocks), 8, 32), *_scales_and_minima(blocks)


def _q5_k(blocks: Bytes) -> Unpacked:
    low = shifted(blocks[:, 48:].reshape(len(blocks), 4, 32), range(0, 8, 4), 15).reshape(len(blocks), 8, 32)
    return low | shifted(blocks[:, 16:48], range(8), 1) << np.uint8(4), *_scales_and_minima(blocks)


def _q6_k(blocks: Bytes) -> Unpacked:
    """value = scale of 256 * scale of 16 * (code - 32).

    128 bytes of low nibbles, 64 of upper pairs of bits, 16 scales (int8), a float16. Each half of 128 values has four runs
    of 32: a byte's nibbles are of runs 0 and 2 or 1 and 3, a byte of upper bits has those of all four.
    """
    low = shifted(blocks[:, :128].reshape(len(blocks), 2, 64), range(0, 8, 4), 15).reshape(len(blocks), SUPER_BLOCK)
    codes = (low | _quarters(blocks[:, 128:192]) << np.uint8(4)).astype(np.int8) - np.int8(32)
    scale = half(blocks[:, None, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return codes.reshape(len(blocks), 16, 16), scale, None


def _q8_k(blocks: Bytes) -> Unpacked:
    """A float32, 256 codes, and their sums by 16, which are for products."""
    return blocks[:, None, 4:260].view(np.int8), blocks[:, :4].copy().view("<f4").astype(np.float32), None


def _iq4_xs(blocks: Bytes) -> Unpacked:
    """Scales of six bits around 32: the upper two bits in a 16-bit word, the lower four in nibbles."""
    upper = shifted(blocks[:, 2:4], range(0, 8, 2), 3).swapaxes(1, 2).reshape(-1, 8)
    lower = shifted(blocks[:, 4:8], range(0, 8, 4), 15).swapaxes(1, 2).reshape(-1, 8)
    scale = half(blocks[:, None, :2]) * (_floats(lower | upper << np.uint8(4)) - np.float32(32))
    return np.take(NONLINEAR, nibbles(blocks[:, 8:].reshape(len(blocks), 8, 16))), scale, None


def _floats(codes: Bytes) -> Floats:
    return codes.astype(np.float32)


SUPER_BLOCK_TYPES = {
    "Q2_K": BlockType(columns=SUPER_BLOCK, nbytes=84, run=16, bits=2, unpack=_q2_k),
    "Q3_K": BlockType(columns=SUPER_BLOCK, nbytes=110, run=16, bits=8, unpack=_q3_k),
    "Q4_K": BlockType(columns=SUPER_BLOCK, nbytes=144, run=32, bits=4, unpack=_q4_k),
    "Q5_K": BlockType(columns=SUPER_BLOCK, nbytes=176, run=32, bits=5, unpack=_q5_k),
    "Q6_K": BlockType(columns=SUPER_BLOCK, nbytes=210, run=16, bits=8, unpack=_q6_k),
    "Q8_K": BlockType(columns=SUPER_BLOCK, nbytes=292, run=256, bits=8, unpack=_q8_k),
    "IQ4_XS": BlockType(columns=SUPER_BLOCK, nbytes=136, run=32, bits=8, unpack=_iq4_xs),
}
