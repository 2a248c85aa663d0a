"""The kernels of the ops of our own, computed on a CPU, against NumPy. Run: pytest tests/runtime/test_cuda_own_ops_kernels.py

Needs g++.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes.host_kernels import HostMemory, compile_for_host
from support.cuda_emulation import needs_compiler
from support.decode_reference import bits, numbers, rounded
from triune_runtime.targets.cuda.ops.kernels import options, source

ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
RANDOM = np.random.default_rng(6)
pytestmark = needs_compiler


@pytest.fixture(scope="module", params=ROUNDING)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def kernels(dtype: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        name: compile_for_host(tmp_path_factory.mktemp(name))(source(), name, options(dtype)) for name in ("swiglu", "rotate")
    }


class Memory(HostMemory):
    """Numbers of one type."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.dtype = dtype

    def halves(self, values: NDArray[Any] | None) -> np.uint64:
        return np.uint64(0 if values is None else self.put(bits(values, self.dtype)))

    def room(self, *shape: int) -> np.uint64:
        return self.halves(np.full(shape, np.nan, np.float32))

    def found(self, at: np.uint64, *shape: int) -> NDArray[np.float32]:
        return numbers(self.read(int(at), shape, np.uint16), self.dtype)


def launch(kernel: Any, threads: int, *arguments: np.generic) -> None:
    kernel.launch(0, (-(-threads // 256), 1, 1), (256, 1, 1), arguments)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 2048, 2053, 3 * 2048 + 8])
def test_swiglu_is_silu_of_the_gate_times_up_for_every_number_of_numbers(
    kernels: dict[str, Any], dtype: str, count: int
) -> None:
    gate, up = (rounded(scale * RANDOM.standard_normal(count), dtype) for scale in (20, 3))
    gate[:1] = -100  # its sigmoid is next to nothing
    memory = Memory(dtype)
    at, room = [memory.halves(gate), memory.halves(up)], memory.room(count + 8)
    launch(kernels["swiglu"], -(-count // 8), *at, room, *(np.int64(n) for n in (count, count, count)))
    wide = gate.astype(np.float64)
    found = memory.found(room, count + 8)
    np.testing.assert_allclose(found[:count], wide / (1 + np.exp(-wide)) * up, rtol=ROUNDING[dtype], atol=1e-7)
    assert np.isnan(found[count:]).all(), "written behind the end"


@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (3, 7), (5, 24), (300, 8), (9, 251)])
def test_swiglu_of_the_halves_of_rows_needs_no_copies_of_them(
    kernels: dict[str, Any], dtype: str, rows: int, columns: int
) -> None:
    both = rounded(RANDOM.standard_normal((rows, 2 * columns)), dtype)
    memory, count = Memory(dtype), rows * columns
    at, room = memory.halves(both), memory.room(count + 8)
    sizes = [np.int64(n) for n in (count, columns, 2 * columns)]
    launch(kernels["swiglu"], -(-count // 8), at, at + np.uint64(2 * columns), room, *sizes)
    gate, up = np.split(both.astype(np.float64), 2, axis=1)
    found = memory.found(room, count + 8)
    np.testing.assert_allclose(found[:count], (gate / (1 + np.exp(-gate)) * up).ravel(), rtol=ROUNDING[dtype], atol=1e-7)
    assert np.isnan(found[count:]).all(), "written behind the end"


def expected(
    packed: NDArray[Any], bias: Any, norms: Any, tables: Any, lengths: list[int], past: list[int], heads: int, kv_heads: int
) -> list[NDArray[Any]]:
    rows = packed.astype(np.float64) + (0 if bias is None else bias)
    rows = rows.reshape(len(rows), heads + 2 * kv_heads, -1)
    parts = list(np.split(rows, [heads, heads + kv_heads], axis=1))
    positions = np.concatenate([first + np.arange(count) for first, count in zip(past, lengths, strict=True)])
    cos, sin = (table[positions][:, None].astype(np.float64) for table in tables)
    for i in range(2):
        if norms is not None:
            parts[i] = parts[i] / np.sqrt((parts[i] ** 2).mean(-1, keepdims=True) + 1e-3) * norms[i]
        a, b = np.split(parts[i], 2, axis=-1)
        parts[i] = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    return [part.reshape(len(rows), -1) for part in parts]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "has_bias", "has_norms"),
    [
        (12, 2, 128, True, False),
        (4, 2, 64, False, True),
        (2, 2, 256, True, True),
        (3, 1, 48, True, False),
        (1, 1, 16, False, True),
    ],
)
@pytest.mark.parametrize(("lengths", "past"), [([1], [9]), ([3, 0, 1, 5], [0, 4, 39, 2]), ([1] * 7, [5, 0, 3, 3, 30, 1, 2])])
def test_rotate_adds_normalizes_rotates_and_parts_ragged_rows(
    kernels: dict[str, Any], dtype: str, heads: int, kv_heads: int, dim: int, has_bias: bool, has_norms: bool,
    lengths: list[int], past: list[int],
) -> None:  # fmt: skip
    tokens, all_heads = sum(lengths), heads + 2 * kv_heads
    packed = rounded(RANDOM.standard_normal((tokens, all_heads * dim)), dtype)
    bias = rounded(RANDOM.standard_normal(all_heads * dim), dtype) if has_bias else None
    norms = rounded(RANDOM.uniform(0.5, 2, (2, dim)), dtype) if has_norms else None
    angles = RANDOM.uniform(0, 6, (40, dim // 2))
    tables = [rounded(function(angles), dtype) for function in (np.cos, np.sin)]
    memory = Memory(dtype)
    sizes = [heads * dim, kv_heads * dim, kv_heads * dim]
    rooms = [memory.room(tokens, size) for size in sizes]
    ends = memory.put(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    query_norm, key_norm = norms if norms is not None else (None, None)
    at = [memory.halves(values) for values in (packed, bias, query_norm, key_norm, *tables)]
    places = [np.uint64(ends), np.uint64(memory.put(np.array(past, np.int32)))]
    counts = [np.int32(count) for count in (tokens, len(lengths), heads, kv_heads, dim)]
    launch(kernels["rotate"], tokens * all_heads * dim // 16, *at, *places, *rooms, *counts, np.float32(1e-3))
    wanted = expected(packed, bias, norms, tables, lengths, past, heads, kv_heads)
    for room, size, part in zip(rooms, sizes, wanted, strict=True):
        np.testing.assert_allclose(memory.found(room, tokens, size), part, rtol=ROUNDING[dtype], atol=2e-6)
