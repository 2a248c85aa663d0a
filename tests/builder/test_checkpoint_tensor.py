"""Tensors in files: numbers, blocks, row order. Run: pytest tests/builder/test_checkpoint_tensor.py"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triune_builder.checkpoint import Blocks, Tensor
from triune_builder.checkpoint.tensor import BLOCKED, PLAIN, half_order
from triune_builder.errors import BuildError

ON_DISK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GGUF_TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]


def stored(path: Path, values: np.ndarray, dtype: str, *, before: int = 0, heads: int | None = None) -> Tensor:
    """`values` written to `path` in `dtype` by the gguf package, behind `before` other bytes."""
    raw = gguf.quantize(values, GGMLQuantizationType[dtype]).tobytes()
    path.write_bytes(b"\xff" * before + raw + b"\xff" * 7)
    return Tensor(name="w", shape=values.shape, dtype=dtype, path=path, offset=before, nbytes=len(raw), interleaved_heads=heads)


def decoded(values: np.ndarray, dtype: str) -> np.ndarray:
    """The same, put through the gguf package both ways."""
    kind = GGMLQuantizationType[dtype]
    return gguf.dequantize(gguf.quantize(values, kind), kind)


def random_matrix(seed: int, rows: int, columns: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, columns)) * 10 ** random.uniform(-3, 2)).astype(np.float32)


@pytest.mark.parametrize("dtype", GGUF_TYPES)
@ON_DISK
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5000))
def test_values_are_those_of_the_gguf_package(
    tmp_path: Path, dtype: str, seed: int, rows: int, blocks: int, before: int
) -> None:
    values = random_matrix(seed, rows, 32 * blocks)
    tensor = stored(tmp_path / "t", values, dtype, before=before)
    assert np.array_equal(tensor.float32(), decoded(values, dtype))
    assert tensor.float32().dtype == np.float32


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0", "Q4_1"])
@ON_DISK
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 4))
def test_blocks_give_the_values_back_by_their_definition(tmp_path: Path, dtype: str, seed: int, rows: int, blocks: int) -> None:
    values = random_matrix(seed, rows, 32 * blocks)
    got = stored(tmp_path / "t", values, dtype).blocks()
    assert got is not None
    assert got.codes.shape == values.shape and got.scale.shape == (rows, blocks) and got.block == 32
    assert got.bits == (8 if dtype == "Q8_0" else 4) and int(got.codes.max()) < 2 ** (7 if dtype == "Q8_0" else 4)

    def wide(per_block: np.ndarray) -> np.ndarray:
        return np.repeat(per_block, 32, axis=1)

    minimum = wide(got.minimum) if got.minimum is not None else np.float32(0)
    assert np.array_equal(wide(got.scale) * got.codes + minimum, decoded(values, dtype))
    unsigned = got.unsigned().astype(np.float64) * wide(got.scale) + wide(got.offset())
    np.testing.assert_allclose(unsigned, decoded(values, dtype), rtol=0, atol=float(np.abs(got.scale).max()) * 1e-4)


def test_eight_bit_codes_become_unsigned_by_adding_128() -> None:
    codes = np.arange(-128, 128, dtype=np.int8).reshape(8, 32)
    blocks = Blocks(codes=codes, scale=np.ones((8, 1), np.float32), minimum=None, bits=8)
    assert blocks.unsigned().ravel().tolist() == list(range(256))
    assert blocks.offset().tolist() == [[-128.0]] * 8


@pytest.mark.parametrize("dtype", GGUF_TYPES)
@pytest.mark.parametrize("bands", [1, 5])
def test_interleaved_rows_come_back_in_halves(tmp_path: Path, dtype: str, bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, dim, columns = 3, 8, 64
    if bands > 1:  # several groups of rows, the last of them smaller
        monkeypatch.setattr("triune_builder.checkpoint.tensor._BAND_BYTES", 5 * columns)
    values = random_matrix(1, heads * dim, columns)
    interleaved = np.empty_like(values)
    for h in range(heads):
        for i in range(dim // 2):  # the pair that rotates together lies side by side
            interleaved[h * dim + 2 * i] = values[h * dim + i]
            interleaved[h * dim + 2 * i + 1] = values[h * dim + dim // 2 + i]
    tensor = stored(tmp_path / "t", interleaved, dtype, heads=heads)
    assert np.array_equal(tensor.float32(), decoded(values, dtype))
    blocks, plain = tensor.blocks(), stored(tmp_path / "p", values, dtype).blocks()
    assert (blocks is None) == (dtype in PLAIN)
    if blocks and plain:
        assert np.array_equal(blocks.codes, plain.codes) and np.array_equal(blocks.scale, plain.scale)
        assert blocks.minimum is plain.minimum is None or np.array_equal(blocks.minimum, plain.minimum)


@given(st.integers(1, 8), st.integers(1, 16))
def test_row_order_is_a_permutation_within_heads(heads: int, pairs: int) -> None:
    order = half_order(heads * pairs * 2, heads).reshape(heads, -1)
    assert (np.sort(order, axis=1) == np.arange(heads * pairs * 2).reshape(heads, -1)).all()


def test_a_vector_is_permuted_by_element(tmp_path: Path) -> None:
    tensor = stored(tmp_path / "t", np.array([0, 2, 1, 3], np.float32), "F32", heads=1)
    assert tensor.float32().tolist() == [0, 1, 2, 3]


def test_location_is_of_plain_bytes_only(tmp_path: Path) -> None:
    values = random_matrix(2, 4, 32)
    plain = stored(tmp_path / "t", values, "F16", before=64)
    assert plain.location() == (tmp_path / "t", 64, values.size * 2)
    raw = (tmp_path / "t").read_bytes()[64 : 64 + values.size * 2]
    assert np.array_equal(np.frombuffer(raw, "<f2").reshape(values.shape), values.astype(np.float16))
    assert stored(tmp_path / "q", values, "Q8_0").location() is None
    assert stored(tmp_path / "p", values, "F16", heads=2).location() is None


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(np.float32(2.5).tobytes())
    scalar = Tensor(name="s", shape=(), dtype="F32", path=tmp_path / "t", offset=0, nbytes=4)
    assert scalar.float32().tolist() == 2.5
    empty = Tensor(name="e", shape=(0, 4), dtype="F32", path=tmp_path / "t", offset=4, nbytes=0)
    assert empty.float32().shape == (0, 4)


def test_a_file_that_shrank_is_named(tmp_path: Path) -> None:
    tensor = stored(tmp_path / "t", random_matrix(3, 4, 32), "F32")
    (tmp_path / "t").write_bytes(b"")
    with pytest.raises(BuildError, match=r"cannot read tensor w .*t: "):
        tensor.float32()
    assert not (PLAIN.keys() & BLOCKED.keys())


@pytest.mark.filterwarnings("error")
def test_scales_that_are_no_numbers_make_values_that_are_none_in_silence(tmp_path: Path) -> None:
    tensor = stored(tmp_path / "t", np.zeros((2, 32), np.float32), "Q8_0")
    raw = bytearray((tmp_path / "t").read_bytes())
    raw[:2] = np.float16(np.inf).tobytes()
    (tmp_path / "t").write_bytes(raw)
    assert not np.isfinite(tensor.float32()).all()
