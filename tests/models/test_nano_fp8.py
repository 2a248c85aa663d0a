"""The block-FP8 form of r1-nano's weights, read by a reader of its own. Run: pytest tests/models/test_nano_fp8.py"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from r1_nano.fp8 import BLOCK, convert, quantize

TYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn}
CHECKPOINT = Path(__file__).parents[2] / "models" / "r1-nano" / "checkpoint"


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8")
    convert(CHECKPOINT, folder)
    return folder


def stored(path: Path) -> dict[str, tuple[str, list[int], NDArray[Any]]]:
    """Type, shape and numbers of every tensor of a safetensors file."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    found = {}
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            array = np.frombuffer(raw[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            found[name] = entry["dtype"], entry["shape"], array
    return found


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), scale=st.floats(1e-6, 1e4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_block_has_the_scale_of_its_own_largest_number(rows: int, columns: int, scale: float, seed: int) -> None:
    weight = (np.random.default_rng(seed).normal(size=(rows, columns)) * scale).astype(np.float32)
    codes, scales = quantize(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            area = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            back: NDArray[np.float32] = codes[area].astype(np.float32) * scales[i, j]
            largest = np.abs(weight[area]).max()
            assert scales[i, j] == pytest.approx(largest / 448, rel=1e-5)
            assert np.abs(back - weight[area]).max() <= largest * 2**-4  # three bits of fraction


def test_what_r1_keeps_is_kept_and_the_rest_has_scales(eight: Path) -> None:
    header = stored(eight / "model.safetensors")
    quantized = {name for name, (dtype, *_) in header.items() if dtype == "F8_E4M3"}
    assert {f"{name}_scale_inv" for name in quantized} == {name for name in header if name.endswith("_scale_inv")}
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in quantized
    assert "model.layers.0.self_attn.kv_b_proj.weight" in quantized
    for kept in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate.weight", "model.norm.weight"):
        assert header[kept][0] == "BF16", kept
    for name in quantized:
        assert header[f"{name}_scale_inv"][:2] == ("F32", [-(-n // 128) for n in header[name][1]])
    assert json.loads((eight / "config.json").read_text("utf-8"))["quantization_config"]["weight_block_size"] == [128, 128]


def test_it_is_smaller_and_says_the_same(eight: Path) -> None:
    plain, small = (folder / "model.safetensors" for folder in (CHECKPOINT, eight))
    assert small.stat().st_size < 0.6 * plain.stat().st_size and plain.stat().st_size <= 25_000_000
    wide, narrow = stored(plain), stored(small)
    for name, (*_, array) in wide.items():
        dtype, _, codes = narrow[name]
        original, back = array.astype(np.float32), codes.astype(np.float32)
        if dtype == "F8_E4M3":
            scale = np.kron(narrow[f"{name}_scale_inv"][2], np.ones((BLOCK, BLOCK), np.float32))
            back = back * scale[: original.shape[0], : original.shape[1]]
        assert np.linalg.norm(back - original) <= 0.04 * np.linalg.norm(original), name
