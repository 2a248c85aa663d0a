"""Matrices of small integers packed as each tool's format says, with plain loops; shares no code with the readers.

Every function takes codes [rows, columns] and scales and zeros [rows, groups], and gives the tensors that belong to a module
`name`. What they mean is `dequantized`, whatever the format.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
Ints = NDArray[np.int64]


def dequantized(codes: Ints, scales: NDArray[Any], zeros: Ints, group_of: Ints) -> NDArray[np.float32]:
    """(code - zero) * scale, number by number."""
    out = np.empty(codes.shape, np.float32)
    for i, j in np.ndindex(*codes.shape):
        g = group_of[j]
        out[i, j] = np.float32(int(codes[i, j]) - int(zeros[i, g])) * np.float32(scales[i, g])
    return out


def words(entries: Ints, bits: int) -> NDArray[np.int32]:
    """[n, m] -> [n / per word, m]: neighbours of the first axis in one word, the first lowest."""
    per = 32 // bits
    out = np.zeros((-(-len(entries) // per), entries.shape[1]), np.uint32)
    for i, j in np.ndindex(*entries.shape):
        out[i // per, j] |= np.uint32((int(entries[i, j]) & ((1 << bits) - 1)) << (bits * (i % per)))
    return out.view(np.int32)


def gptq(name: str, codes: Ints, scales: Any, zeros: Ints, group_of: Ints, bits: int, *, second: bool = False) -> Tensors:
    """AutoGPTQ: everything transposed; the first layout keeps one less than the zero, the second the zero."""
    stored = zeros if second else zeros - 1
    return {
        f"{name}.qweight": words(codes.T, bits),
        f"{name}.qzeros": np.ascontiguousarray(words(stored, bits).T),
        f"{name}.scales": np.ascontiguousarray(scales.T),
        f"{name}.g_idx": group_of.astype(np.int32),
    }


def awq(name: str, codes: Ints, scales: Any, zeros: Ints) -> Tensors:
    """AutoAWQ's gemm: rows of the transposed matrix, eight of its columns a word, in the order 0 2 4 6 1 3 5 7."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def packed(entries: Ints) -> NDArray[np.int32]:
        out = np.zeros((entries.shape[0], entries.shape[1] // 8), np.uint32)
        for i, j in np.ndindex(*out.shape):
            for place in range(8):
                out[i, j] |= np.uint32(int(entries[i, 8 * j + order[place]]) << (4 * place))
        return out.view(np.int32)

    return {f"{name}.qweight": packed(codes.T), f"{name}.qzeros": packed(zeros.T), f"{name}.scales": scales.T.copy()}


def compressed(
    name: str, codes: Ints, scales: Any, zeros: Ints | None, group_of: Ints | None, bits: int, *, loose: bool = False
) -> Tensors:
    """compressed-tensors' pack-quantized. Codes and zeros are signed, and packed with the middle added.

    Args:
        loose: zeros as older releases keep them, one a byte.
    """
    middle = 1 << (bits - 1)
    made: Tensors = {
        f"{name}.weight_packed": np.ascontiguousarray(words((codes + middle).T, bits).T),
        f"{name}.weight_scale": scales,
        f"{name}.weight_shape": np.array(codes.shape, np.int64),
    }
    if zeros is not None:
        made[f"{name}.weight_zero_point"] = zeros.astype(np.int8) if loose else words(zeros + middle, bits)
    if group_of is not None:
        made[f"{name}.weight_g_idx"] = group_of.astype(np.int32)
    return made


def modelopt(name: str, codes: Ints, scales: Any, factors: Any | None) -> Tensors:
    """Model Optimizer: two rows a byte, the even one in the lower half, in two's complement."""
    packed = np.zeros((len(codes) // 2, codes.shape[1]), np.uint8)
    for i, j in np.ndindex(*codes.shape):
        packed[i // 2, j] |= np.uint8((int(codes[i, j]) & 15) << (4 * (i % 2)))
    made: Tensors = {f"{name}.weight": packed, f"{name}.weight_scale": scales}
    return made if factors is None else made | {f"{name}.pre_quant_scale": factors}


def four_bits(name: str, codes: Ints, table: Any, maxima: Any, block: int, kind: str, nested: Any = None) -> Tensors:
    """bitsandbytes: codes of a table, two a byte, the first in the upper half; the state as JSON in bytes.

    Args:
        nested: codes of the maxima, their table, the maxima of blocks of 256 of them, and their offset; in place of `maxima`.
    """
    flat = codes.reshape(-1)
    packed = np.zeros(-(-len(flat) // 2), np.uint8)
    for i, code in enumerate(flat):
        packed[i // 2] |= np.uint8(int(code) << (0 if i % 2 else 4))
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": list(codes.shape)}
    made: Tensors = {f"{name}.weight": packed[:, None], f"{name}.weight.quant_map": table}
    if nested is None:
        made[f"{name}.weight.absmax"] = maxima
    else:
        inner, inner_table, outer, offset = nested
        made |= {
            f"{name}.weight.absmax": inner,
            f"{name}.weight.nested_quant_map": inner_table,
            f"{name}.weight.nested_absmax": outer,
        }
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
    made[f"{name}.weight.quant_state.bitsandbytes__{kind}"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    return made


FORMS: dict[str, dict[str, Any]] = {
    "GPTQ": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": False},
    "AWQ": {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
    "W4A16": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}},
    },
    "NF4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}


def packed_form(form: str, name: str, values: NDArray[np.float32]) -> Tensors:
    """The tensors of a module whose weight is `values`, rounded to nearest in groups of 32, in a form of `FORMS`."""
    if form == "NF4":
        flat = values.reshape(-1, 32)
        maxima = np.abs(flat).max(axis=1).astype(np.float32)
        table = np.linspace(-1, 1, 16).astype(np.float32)
        codes = np.abs(flat[..., None] / maxima[:, None, None] - table).argmin(axis=-1)
        return four_bits(name, codes.reshape(values.shape), table, maxima, 32, "nf4")
    split = values.reshape(len(values), -1, 32)
    low, high = np.minimum(split.min(axis=2), 0), np.maximum(split.max(axis=2), 0)
    scales = ((high - low) / 14).astype(np.float16)
    wide = scales.astype(np.float32)
    zeros = np.rint(-low / wide).clip(1, 15).astype(np.int64)
    codes = (np.rint(split / wide[..., None]) + zeros[..., None]).clip(0, 15).astype(np.int64).reshape(values.shape)
    if form == "GPTQ":
        return gptq(name, codes, scales, zeros, np.arange(values.shape[1]) // 32, 4)
    if form == "AWQ":
        return awq(name, codes, scales, zeros)
    return compressed(name, codes - 8, scales, zeros - 8, None, 4)
