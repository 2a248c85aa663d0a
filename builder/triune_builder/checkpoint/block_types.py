"""Block formats of GGUF with 32 numbers a block, each as codes, scale and minimum; block by block as ggml lays them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.int8]
Unpacked: TypeAlias = tuple[Codes, Floats, Floats | None]  # codes [blocks, runs, run], scale and minimum [blocks, runs]

BLOCK = 32
# What a four-bit code stands for, in the formats that space their numbers unevenly.
NONLINEAR = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_HALF_STEPS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # E2M1, doubled


@dataclass(frozen=True, kw_only=True)
class BlockType:
    """One format: value = scale * code + minimum, with `minimum` None standing for zero.

    Formats that look their numbers up in a table of whole numbers have these for codes, which then have eight bits.
    """

    columns: int  # numbers of a row in one block
    nbytes: int  # of a block
    run: int  # numbers that share a scale
    bits: int  # of a code; eight-bit codes are signed, others are not
    unpack: Callable[[Bytes], Unpacked]  # of blocks [blocks, nbytes]


def half(pair: Bytes) -> Floats:
    """Two bytes [..., 2] as a float16 [...]."""
    return pair.copy().view("<f2")[..., 0].astype(np.float32)


def nibbles(packed: Bytes) -> Bytes:
    """Bytes [..., n] as codes [..., 2 n]: low nibbles are the first half, high nibbles the second."""
    return np.concatenate([packed & np.uint8(15), packed >> np.uint8(4)], axis=-1)


def shifted(packed: Bytes, shifts: range, mask: int) -> Bytes:
    """Bits of bytes [..., n] as [..., shifts, n]: all bytes' lowest first, and so on."""
    return packed[..., None, :] >> np.array(shifts, np.uint8)[:, None] & np.uint8(mask)


def _q8_0(blocks: Bytes) -> Unpacked:
    return blocks[:, None, 2:].view(np.int8), half(blocks[:, None, :2]), None


def _q4_0(blocks: Bytes) -> Unpacked:
    """value = scale * (code - 8); float32 holds 8 * scale exactly."""
    scale = half(blocks[:, None, :2])
    return nibbles(blocks[:, None, 2:]), scale, np.float32(-8) * scale


def _q4_1(blocks: Bytes) -> Unpacked:
    return nibbles(blocks[:, None, 4:]), half(blocks[:, None, :2]), half(blocks[:, None, 2:4])


def _fifth_bits(packed: Bytes, high: Bytes) -> Bytes:
    """Codes [blocks, 1, 32] of nibbles [blocks, 16] and the bits above them [blocks, 4], lowest first."""
    above = np.unpackbits(high, axis=-1, bitorder="little")
    return (nibbles(packed) | above << np.uint8(4))[:, None]


def _q5_0(blocks: Bytes) -> Unpacked:
    scale = half(blocks[:, None, :2])
    return _fifth_bits(blocks[:, 6:], blocks[:, 2:6]), scale, np.float32(-16) * scale


def _q5_1(blocks: Bytes) -> Unpacked:
    return _fifth_bits(blocks[:, 8:], blocks[:, 4:8]), half(blocks[:, None, :2]), half(blocks[:, None, 2:4])


def _iq4_nl(blocks: Bytes) -> Unpacked:
    return np.take(NONLINEAR, nibbles(blocks[:, None, 2:])), half(blocks[:, None, :2]), None


def _mxfp4(blocks: Bytes) -> Unpacked:
    """The scale is half of a power of two, whose exponent is the first byte: 2^(e - 128)."""
    return (
        np.take(_HALF_STEPS, nibbles(blocks[:, None, 1:])),
        np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 128),
        None,
    )


BLOCK_TYPES = {
    "Q8_0": BlockType(columns=BLOCK, nbytes=34, run=BLOCK, bits=8, unpack=_q8_0),
    "Q4_0": BlockType(columns=BLOCK, nbytes=18, run=BLOCK, bits=4, unpack=_q4_0),
    "Q4_1": BlockType(columns=BLOCK, nbytes=20, run=BLOCK, bits=4, unpack=_q4_1),
    "Q5_0": BlockType(columns=BLOCK, nbytes=22, run=BLOCK, bits=5, unpack=_q5_0),
    "Q5_1": BlockType(columns=BLOCK, nbytes=24, run=BLOCK, bits=5, unpack=_q5_1),
    "IQ4_NL": BlockType(columns=BLOCK, nbytes=18, run=BLOCK, bits=8, unpack=_iq4_nl),
    "MXFP4": BlockType(columns=BLOCK, nbytes=17, run=BLOCK, bits=8, unpack=_mxfp4),
}
