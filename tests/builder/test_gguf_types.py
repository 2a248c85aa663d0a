"""Every block type of GGUF gives the numbers of the gguf package. Run: pytest tests/builder/test_gguf_types.py"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triune_builder.checkpoint import Tensor
from triune_builder.checkpoint.tensor import BLOCKED

ON_DISK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Where a block has float16 numbers: any other bytes of it may be any.
HALVES = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0], "MXFP4": [], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
}  # fmt: skip
JUDGED = sorted(HALVES)
UNCARRIED = {"Q2_K", "Q3_K", "Q6_K"}  # 16 numbers share a scale


def made_up(dtype: str, seed: int, rows: int, blocks: int) -> np.ndarray:
    """Rows of blocks of any bytes, with numbers for scales."""
    random = np.random.default_rng(seed)
    _, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
    raw = random.integers(0, 256, (rows, blocks, nbytes), np.uint8)
    for at in HALVES.get(dtype, []):
        raw[..., at : at + 2] = random.normal(size=(rows, blocks, 1)).astype(np.float16).view(np.uint8)
    if dtype == "MXFP4":
        raw[..., 0] = random.integers(0, 250, (rows, blocks))  # an exponent
    return raw.reshape(rows, -1)


def on_disk(path: Path, raw: np.ndarray, dtype: str, before: int = 0) -> Tensor:
    block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
    path.write_bytes(b"\xff" * before + raw.tobytes() + b"\xff" * 7)
    shape = (len(raw), raw.shape[1] // nbytes * block)
    return Tensor(name="w", shape=shape, dtype=dtype, path=path, offset=before, nbytes=raw.nbytes)


@pytest.mark.parametrize("dtype", JUDGED)
@ON_DISK
@given(st.integers(0, 1 << 30), st.integers(1, 9), st.integers(1, 4), st.integers(0, 500))
def test_any_bytes_are_the_numbers_of_the_gguf_package(
    tmp_path: Path, dtype: str, seed: int, rows: int, blocks: int, before: int
) -> None:
    raw = made_up(dtype, seed, rows, blocks)
    tensor = on_disk(tmp_path / "t", raw, dtype, before)
    assert np.array_equal(tensor.float32(), gguf.dequantize(raw, GGMLQuantizationType[dtype]))
    assert tensor.float32().dtype == np.float32 and tensor.location() is None


def test_q8_k_is_a_float32_times_its_codes(tmp_path: Path) -> None:
    """The gguf package knows no numbers of it: by its definition, with the sums for products behind the codes."""
    random = np.random.default_rng(1)
    scale, codes = random.normal(size=6).astype("<f4"), random.integers(-127, 128, (6, 256)).astype(np.int8)
    raw = b"".join(s.tobytes() + c.tobytes() + b"\xee" * 32 for s, c in zip(scale, codes, strict=True))
    tensor = on_disk(tmp_path / "t", np.frombuffer(raw, np.uint8).reshape(3, -1), "Q8_K")
    assert np.array_equal(tensor.float32(), (scale[:, None] * codes).reshape(3, 512))
    blocks = tensor.blocks()
    assert blocks is not None and np.array_equal(blocks.codes, codes.reshape(3, 512))
    assert np.array_equal(blocks.scale, np.repeat(scale.reshape(3, 2), 8, axis=1))


@pytest.mark.parametrize("exponent", [0, 1, 2, 127, 128])
def test_the_smallest_scales_of_mxfp4_are_not_lost(tmp_path: Path, exponent: int) -> None:
    raw = np.full((1, 17), 0x22, np.uint8)  # codes of 1, which is two half steps
    raw[0, 0] = exponent
    assert on_disk(tmp_path / "t", raw, "MXFP4").float32().tolist() == [[2.0 * 2.0 ** (exponent - 128)] * 32]


@pytest.mark.parametrize("dtype", sorted(BLOCKED))
@ON_DISK
@given(st.integers(0, 1 << 30), st.integers(1, 5), st.integers(1, 3))
def test_blocks_of_32_give_the_same_numbers_by_their_definition(
    tmp_path: Path, dtype: str, seed: int, rows: int, blocks: int
) -> None:
    raw = made_up(dtype, seed, rows, blocks)
    if dtype == "Q8_K":
        raw.reshape(rows, blocks, -1)[..., :4] = np.ones((rows, blocks, 1), "<f4").view(np.uint8)
    tensor = on_disk(tmp_path / "t", raw, dtype)
    got = tensor.blocks()
    assert (got is None) == (not tensor.has_blocks) == (dtype in UNCARRIED)
    if got is None:
        return
    assert got.block == 32 and (got.codes.dtype == np.int8) == (got.bits == 8) and got.unsigned().max() < 1 << got.bits
    minimum = 0 if got.minimum is None else np.repeat(got.minimum, 32, axis=1)
    assert np.array_equal(np.repeat(got.scale, 32, axis=1) * got.codes + minimum, tensor.float32())


@pytest.mark.parametrize("dtype", ["Q2_K", "Q4_K", "Q5_0", "IQ4_XS"])
def test_rows_are_decoded_a_few_at_a_time(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the numbers themselves a band of bytes and what it becomes: never the matrix again, nor in float64."""
    monkeypatch.setattr("triune_builder.checkpoint.tensor._BAND_BYTES", 1 << 13)
    columns, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]]
    blocks = 1024 // columns
    tensor = on_disk(tmp_path / "t", np.repeat(made_up(dtype, 3, 1, blocks), 512, axis=0), dtype)  # 2^19 numbers
    tracemalloc.start()
    values = tensor.float32()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    numbers = (1 << 13) // nbytes * columns  # of a band
    assert peak - values.nbytes < 20 * numbers < values.nbytes / 2
