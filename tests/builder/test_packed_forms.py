"""GPTQ, AWQ, compressed-tensors, Model Optimizer and bitsandbytes: every number, as each format says. Run:
pytest tests/builder/test_packed_forms.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from fakes.packed_weights import awq, compressed, dequantized, four_bits, gptq, modelopt
from fakes.safetensors_writer import write_tensors
from triune_builder.checkpoint import Checkpoint, Tensor, open_checkpoint
from triune_builder.errors import BuildError

ROWS, COLUMNS = 64, 96
NF4 = np.linspace(-1, 1, 16).astype(np.float32)  # any table will do: it lies in the file


def opened(folder: Path, quantization: Any, tensors: dict[str, Any]) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    plain = {"b.weight": np.ones((3, 5), ml_dtypes.bfloat16), "n.weight": np.ones(7, np.float32)}
    write_tensors(folder / "model.safetensors", tensors | plain)
    checkpoint = open_checkpoint(str(folder), cache=folder)
    assert checkpoint.weights.keys() == {"a.weight", "b.weight", "n.weight"} and "quantization_config" not in checkpoint.config
    return checkpoint


def made_up(bits: int, group: int, *, seed: int = 0, shuffled: bool = False, low: int = 0) -> tuple[Any, Any, Any, Any]:
    """Codes, scales, zeros and each column's group."""
    random = np.random.default_rng(seed)
    count = -(-COLUMNS // group)
    codes = random.integers(low, low + (1 << bits), (ROWS, COLUMNS))
    scales = random.uniform(0.01, 1, (ROWS, count)).astype(np.float16)
    zeros = random.integers(low, low + (1 << bits), (ROWS, count))
    group_of = np.arange(COLUMNS) // group
    return codes, scales, zeros, random.permutation(group_of) if shuffled else group_of


def check(weight: Tensor, expected: np.ndarray, *, carried: bool) -> None:
    """The numbers to the bit, and blocks of 32 that mean them."""
    assert weight.shape == expected.shape and np.array_equal(weight.float32(), expected)
    blocks = weight.blocks()
    assert weight.location() is None and weight.has_blocks == (blocks is not None) == carried
    if blocks is not None:
        assert blocks.block == 32
        wide = np.repeat(blocks.scale, 32, axis=1).astype(np.float64)
        got = blocks.unsigned() * wide + np.repeat(blocks.offset(), 32, axis=1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("second", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("group", [32, 96, 48, 16])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq(tmp_path: Path, bits: int, group: int, second: bool, bands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if bands > 1:
        monkeypatch.setattr("triune_builder.checkpoint.grouped._BAND", 32 * COLUMNS)
    codes, scales, zeros, group_of = made_up(bits, group)
    if not second:  # the first layout's words hold neighbours, so no zero of theirs can be 0
        zeros = np.maximum(zeros, 1)
    config = {"quant_method": "gptq", "bits": bits, "group_size": -1 if group == COLUMNS else group, "desc_act": False}
    config |= {"checkpoint_format": "gptq_v2"} if second else {"sym": False}
    weight = opened(tmp_path / "m", config, gptq("a", codes, scales, zeros, group_of, bits, second=second)).weights["a.weight"]
    check(weight, dequantized(codes, scales, zeros, group_of), carried=group in (32, 96))


def test_gptq_with_columns_in_the_order_of_their_activations(tmp_path: Path) -> None:
    codes, scales, zeros, group_of = made_up(4, 32, shuffled=True)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True}
    zeros = np.full_like(zeros, 8)
    weight = opened(tmp_path / "m", config, gptq("a", codes, scales, zeros, group_of, 4)).weights["a.weight"]
    check(weight, dequantized(codes, scales, zeros, group_of), carried=False)


def test_gptq_without_the_order_of_columns(tmp_path: Path) -> None:
    codes, scales, zeros, group_of = made_up(4, 32)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    tensors = gptq("a", codes, scales, np.maximum(zeros, 1), group_of, 4)
    del tensors["a.g_idx"]
    check(opened(tmp_path / "m", config, tensors).weights["a.weight"],
          dequantized(codes, scales, np.maximum(zeros, 1), group_of), carried=True)  # fmt: skip


def test_zeros_that_borrowed_from_their_neighbour_come_back(tmp_path: Path) -> None:
    """GPTQModel takes one from all places of a word at once, so a zero of 0 borrows; adding it back undoes that."""
    codes, scales, zeros, group_of = made_up(4, 32)
    zeros[::3] = 0
    tensors = gptq("a", codes, scales, zeros, group_of, 4, second=True)
    with np.errstate(over="ignore"):
        tensors["a.qzeros"] = (tensors["a.qzeros"].view(np.uint32) - np.uint32(0x11111111)).view(np.int32)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    check(opened(tmp_path / "m", config, tensors).weights["a.weight"],
          dequantized(codes, scales, zeros, group_of), carried=True)  # fmt: skip


@pytest.mark.parametrize("group", [32, 96, 48])
def test_awq(tmp_path: Path, group: int) -> None:
    codes, scales, zeros, group_of = made_up(4, group)
    config = {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True,
              "modules_to_not_convert": None}  # fmt: skip
    check(opened(tmp_path / "m", config, awq("a", codes, scales, zeros)).weights["a.weight"],
          dequantized(codes, scales, zeros, group_of), carried=group != 48)  # fmt: skip


def of_compressed(bits: int, strategy: str, *, form: str = "pack-quantized", **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": True, "dynamic": False, **more}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize("loose", [False, True, None], ids=["zeros in words", "zeros in bytes", "symmetric"])
@pytest.mark.parametrize(("group", "strategy"), [(32, "group"), (96, "channel"), (48, "group")])
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors_in_words(tmp_path: Path, bits: int, group: int, strategy: str, loose: bool | None) -> None:
    codes, scales, zeros, group_of = made_up(bits, group, low=-(1 << (bits - 1)))
    zeros = np.zeros_like(zeros) if loose is None else zeros
    tensors = compressed("a", codes, scales, None if loose is None else zeros, None, bits, loose=bool(loose))
    config = of_compressed(bits, strategy, group_size=group if strategy == "group" else None)
    check(opened(tmp_path / "m", config, tensors).weights["a.weight"],
          dequantized(codes, scales, zeros, group_of), carried=group != 48)  # fmt: skip


def test_compressed_tensors_whose_bits_are_left_out_have_eight(tmp_path: Path) -> None:
    codes, scales, zeros, group_of = made_up(8, 96, low=-128)
    config = of_compressed(8, "channel") | {"kv_cache_scheme": None}
    config["config_groups"]["group_0"]["weights"]["num_bits"] = None
    config["config_groups"]["group_1"] = {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}
    check(opened(tmp_path / "m", config, compressed("a", codes, scales, zeros, None, 8)).weights["a.weight"],
          dequantized(codes, scales, zeros, group_of), carried=True)  # fmt: skip


def test_compressed_tensors_with_ordered_columns(tmp_path: Path) -> None:
    codes, scales, zeros, group_of = made_up(4, 32, shuffled=True, low=-8)
    config = of_compressed(4, "group", group_size=32, actorder="group")
    check(opened(tmp_path / "m", config, compressed("a", codes, scales, zeros, group_of, 4)).weights["a.weight"],
          dequantized(codes, scales, zeros, group_of), carried=False)  # fmt: skip


@pytest.mark.parametrize("with_zeros", [False, True])
@pytest.mark.parametrize(
    ("strategy", "shape"), [("channel", (ROWS, 1)), ("channel", (ROWS,)), ("tensor", (1,)), ("group", None)]
)
def test_compressed_tensors_in_bytes(tmp_path: Path, strategy: str, shape: Any, with_zeros: bool) -> None:
    codes, scales, zeros, group_of = made_up(8, 32 if shape is None else COLUMNS, low=-128)
    scales = scales if shape is None else scales[: shape[0]]
    if with_zeros and strategy in ("group", "channel") and shape != (ROWS,):
        more = {"a.weight_zero_point": zeros.astype(np.int8)}
    else:
        zeros, more = np.zeros_like(zeros), {}
    tensors = {"a.weight": codes.astype(np.int8), "a.weight_scale": scales if shape is None else scales.reshape(shape)}
    config = of_compressed(8, strategy, form="int-quantized", group_size=32 if shape is None else None)
    wide = np.broadcast_to(scales, (ROWS, scales.shape[1]))
    check(opened(tmp_path / "m", config, tensors | more | {"a.input_scale": np.ones(1, np.float32)} ).weights["a.weight"],
          dequantized(codes, wide, zeros, group_of), carried=True)  # fmt: skip


@pytest.mark.parametrize("with_factors", [False, True])
def test_model_optimizer_in_four_bits(tmp_path: Path, with_factors: bool) -> None:
    codes, scales, _, group_of = made_up(4, 32, low=-8)
    factors = np.random.default_rng(1).uniform(0.5, 2, COLUMNS).astype(np.float16) if with_factors else None
    config = {"quant_method": "modelopt", "quant_algo": "W4A16_AWQ", "group_size": 32, "ignore": ["lm_head"]}
    expected = dequantized(codes, scales, np.zeros((ROWS, 3), np.int64), group_of)
    expected = expected if factors is None else expected * factors.astype(np.float32)
    check(opened(tmp_path / "m", config, modelopt("a", codes, scales, factors)).weights["a.weight"],
          expected, carried=not with_factors)  # fmt: skip


def test_model_optimizers_own_file_counts_where_the_config_says_nothing(tmp_path: Path) -> None:
    codes, scales, _, group_of = made_up(4, 32, low=-8)
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_AWQ", "group_size": 32}}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "hf_quant_config.json").write_text(json.dumps(said))
    checkpoint = opened(tmp_path / "m", None, modelopt("a", codes, scales, None))
    zeros = np.zeros((ROWS, 3), np.int64)
    check(checkpoint.weights["a.weight"], dequantized(codes, scales, zeros, group_of), carried=True)
    assert tmp_path / "m" / "hf_quant_config.json" in checkpoint.files


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_in_four_bits(tmp_path: Path, kind: str, nested: bool) -> None:
    random = np.random.default_rng(2)
    codes = random.integers(0, 16, (ROWS, COLUMNS))
    count = ROWS * COLUMNS // 64
    maxima = random.uniform(0.1, 2, count).astype(np.float32)
    inner = None
    if nested:
        table, outer = np.sort(random.uniform(-1, 1, 256)).astype(np.float32), np.float32([0.7])
        inner = (random.integers(0, 256, count).astype(np.uint8), table, outer, 0.03)
        maxima = np.float32([np.float32(table[c] * outer[0]) + np.float32(0.03) for c in inner[0]])
    expected = np.empty((ROWS, COLUMNS), np.float32)
    for i, j in np.ndindex(ROWS, COLUMNS):
        expected[i, j] = NF4[codes[i, j]] * maxima[(i * COLUMNS + j) // 64]
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    tensors = four_bits("a", codes, NF4, maxima, 64, kind, inner)
    check(opened(tmp_path / "m", config, tensors).weights["a.weight"], expected, carried=False)


def test_bitsandbytes_in_eight_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    codes, maxima = random.integers(-127, 128, (ROWS, COLUMNS)), random.uniform(0.1, 2, ROWS).astype(np.float32)
    tensors = {"a.weight": codes.astype(np.int8), "a.SCB": maxima, "a.weight_format": np.array(0, np.uint8)}
    weight = opened(tmp_path / "m", {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors).weights["a.weight"]
    np.testing.assert_allclose(weight.float32(), codes * maxima[:, None] / 127, rtol=1e-6)
    assert weight.has_blocks


def test_four_and_eight_bits_and_plain_numbers_side_by_side(tmp_path: Path) -> None:
    """Of GPTQModel (`dynamic`) and of llm-compressor (two groups): what each matrix is its own tensors tell."""
    four, eight = made_up(4, 32), made_up(8, 48, seed=1)
    zeros = np.maximum(four[2], 1), np.maximum(eight[2], 1)
    tensors = gptq("a", four[0], four[1], zeros[0], four[3], 4) | gptq("c", eight[0], eight[1], zeros[1], eight[3], 8)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 32, "dynamic": {"+:.*c": {"bits": 8, "group_size": 48}}}
    folder = tmp_path / "m"
    with pytest.raises(AssertionError):
        opened(folder, config, tensors)  # it has one weight more
    weights = open_checkpoint(str(folder), cache=folder).weights
    check(weights["a.weight"], dequantized(four[0], four[1], zeros[0], four[3]), carried=True)
    check(weights["c.weight"], dequantized(eight[0], eight[1], zeros[1], eight[3]), carried=False)


def test_fp8_beside_four_bits(tmp_path: Path) -> None:
    codes, scales, zeros, group_of = made_up(4, 32, low=-8)
    config = of_compressed(4, "group", group_size=32, form="mixed-precision")
    config["config_groups"]["group_1"] = {
        "format": "float-quantized",
        "weights": {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False},
    }
    eight = np.random.default_rng(5).standard_normal((6, 8)).astype(ml_dtypes.float8_e4m3fn)
    tensors = compressed("a", codes, scales, zeros, None, 4) | {
        "c.weight": eight,
        "c.weight_scale": np.full((6, 1), 2, np.float32),
    }
    folder = tmp_path / "m"
    with pytest.raises(AssertionError):
        opened(folder, config, tensors)
    weights = open_checkpoint(str(folder), cache=folder).weights
    check(weights["a.weight"], dequantized(codes, scales, zeros, group_of), carried=True)
    assert np.array_equal(weights["c.weight"].float32(), 2 * eight.astype(np.float32))


SOUND = made_up(4, 32)
GPTQ = gptq("a", SOUND[0], SOUND[1], np.maximum(SOUND[2], 1), SOUND[3], 4)
OF_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = awq("a", *SOUND[:3])


@pytest.mark.parametrize(
    ("config", "tensors", "said"),
    [
        ({"quant_method": "exl2"}, {}, r"quant_method = 'exl2' \(read are 'fp8', .*'gptq', 'awq', 'bitsandbytes'"),
        (OF_GPTQ | {"checkpoint_format": "marlin"}, GPTQ, r"checkpoint_format = 'marlin' \(read are 'gptq', 'gptq_v2'\)"),
        (OF_GPTQ | {"bits": 8}, GPTQ, r"a\.weight is packed in 4 bits, and config\.json says bits = 8"),
        (OF_GPTQ, GPTQ | {"a.qzeros": np.zeros((3, 6), np.int32)}, r"a\.qzeros \[3, 6\] is of 3 bits for 64 rows; read are 2"),
        (OF_GPTQ, {k: v for k, v in GPTQ.items() if k != "a.scales"}, r"a\.qweight has no a\.scales beside it"),
        (OF_GPTQ, GPTQ | {"a.scales": np.ones((2, ROWS), np.float16)}, r"a\.scales is F16 \[2, 64\]; F32 or F16 or BF16 \[3"),
        (OF_GPTQ, GPTQ | {"a.g_idx": np.zeros(5, np.int32)}, r"a\.g_idx is I32 \[5\]; I32 or I64 \[96\] was expected"),
        (OF_GPTQ, GPTQ | {"a.qweight": np.zeros(5, np.int32)}, r"a\.qweight is I32 \[5\]; a matrix of I32 was expected"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, AWQ, r"version = 'gemv' \(only 'gemm' is read\)"),
        ({"quant_method": "awq", "bits": 4, "zero_point": False}, AWQ, r"zero_point = False \(only True is read\)"),
        (of_compressed(4, "group", form="nvfp4-pack-quantized"), {}, r"format = 'nvfp4-pack-quantized'"),
        (of_compressed(3, "group"), {}, r"weights with num_bits = 3"),
        (of_compressed(4, "group") | {"transform_config": {"u": 1}}, {}, r"transform_config = "),
        (of_compressed(4, "group"), {"a.weight_packed": np.zeros((4, 4), np.int32)}, r"has no a\.weight_scale beside it"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, {}, r"quant_algo = 'NVFP4' \(read are 'FP8'"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"},
         {"a.weight": np.zeros((2, 4), np.uint8)}, "has nothing for its scales"),
        ({"quant_method": "bitsandbytes"}, {"a.weight": np.zeros((4, 4), np.int8)}, r"has no SCB"),
        ({"quant_method": "bitsandbytes"},
         {"a.weight": np.zeros((4, 4), np.int8), "a.SCB": np.ones(4, np.float32), "a.weight_format": np.array(1, np.uint8)},
         r"a\.weight_format says that a\.weight lies in another order"),
        ({"quant_method": "bitsandbytes"},
         four_bits("a", SOUND[0], NF4, np.ones(3, np.float32), 64, "nf4"), r"a\.weight\.absmax is F32 \[3\]; 96 numbers"),
        ({"quant_method": "bitsandbytes"},
         {"a.weight": np.zeros((8, 1), np.uint8), "a.weight.quant_state.bitsandbytes__nf4": np.zeros(9, np.uint8)},
         r"quant_state\.bitsandbytes__nf4 is no readable object of JSON"),
        (None, {"a.weight": np.zeros((4, 4), np.int8)}, r"of type I8 \(such as a\.weight\).*no quantization_config"),
    ],
)  # fmt: skip
def test_what_is_not_read_or_not_whole_is_said_in_a_sentence(tmp_path: Path, config: Any, tensors: Any, said: str) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        opened(tmp_path / "m", config, tensors)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_a_column_of_a_group_that_is_not_there_is_named_when_it_is_read(tmp_path: Path) -> None:
    wrong = GPTQ | {"a.g_idx": np.full(COLUMNS, 3, np.int32)}
    weight = opened(tmp_path / "m", OF_GPTQ, wrong).weights["a.weight"]
    with pytest.raises(BuildError, match=r"a\.g_idx has the group 3; a\.scales has scales of 3"):
        weight.float32()
