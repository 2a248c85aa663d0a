"""DeepSeek's block-FP8 checkpoints. Run: pytest tests/builder/test_fp8.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from fakes.safetensors_writer import to_fp8, write_tensors
from triune_builder.checkpoint import Checkpoint, Fp8Tensor, open_checkpoint
from triune_builder.checkpoint.fp8 import join_scales
from triune_builder.checkpoint.safetensors_files import read_file
from triune_builder.errors import BuildError

QUANTIZATION = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def compressed(**weights: Any) -> dict[str, Any]:
    """As llm-compressor writes it."""
    own = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False, "group_size": None,
           "actorder": None, "observer": "minmax"} | weights  # fmt: skip
    group = {"targets": ["Linear"], "weights": own, "input_activations": {"num_bits": 8, "dynamic": True}}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group},
            "ignore": ["lm_head"], "kv_cache_scheme": None, "quantization_status": "compressed"}  # fmt: skip


def e4m3(code: int) -> float:
    """The value of a code by the format's definition: 1 sign bit, 4 exponent bits with bias 7, 3 mantissa bits."""
    sign, exponent, mantissa = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def opened(folder: Path, config: dict[str, Any] | None = None, **tensors: Any) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    raw = {"model_type": "llama", "quantization_config": QUANTIZATION} | (config or {})
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    write_tensors(folder / "model.safetensors", {name.replace("__", "."): array for name, array in tensors.items()})
    return open_checkpoint(str(folder), cache=folder)


def test_every_code_has_its_value(tmp_path: Path) -> None:
    codes = np.array([c for c in range(256) if c & 127 != 127], np.uint8)  # those two are not numbers
    stored = codes.view(to_fp8(np.zeros((1, 1), np.float32), (1, 1))[0].dtype)
    tensor = read_file(write_tensors(tmp_path / "w.safetensors", {"w": stored}))["w"]
    assert tensor.float32().tolist() == [e4m3(int(code)) for code in codes]


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    block=st.tuples(st.sampled_from([1, 16, 100, 128]), st.sampled_from([1, 16, 100, 128])),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_are_codes_times_their_blocks_scale(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, block: tuple[int, int], seed: int
) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    codes, scale = to_fp8(weight, block)
    folder = tmp_path_factory.mktemp("fp8")
    stored = read_file(write_tensors(folder / "w.safetensors", {"w": codes, "w_scale_inv": scale}))
    joined, config = join_scales(stored, {"quantization_config": QUANTIZATION | {"weight_block_size": list(block)}})
    assert joined.keys() == {"w"} and config == {}
    of_element = scale[np.arange(rows)[:, None] // block[0], np.arange(columns) // block[1]]
    assert np.array_equal(joined["w"].float32(), codes.astype(np.float32) * of_element)


def test_a_matrix_read_in_several_bands_is_whole(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((1500, 3000)).astype(np.float32)  # 4.5 MB: three bands
    codes, scale = to_fp8(weight, (128, 128))
    tensor = opened(tmp_path / "m", w=codes, w_scale_inv=scale).weights["w"]
    wide = np.kron(scale, np.ones((128, 128), np.float32))[:1500, :3000]
    assert np.array_equal(tensor.float32(), codes.astype(np.float32) * wide)


def test_a_matrix_and_its_scales_are_one_weight(tmp_path: Path) -> None:
    codes, scale = to_fp8(np.ones((130, 40), np.float32), (128, 128))
    plain = np.ones(3, np.float32)
    checkpoint = opened(tmp_path / "m", a__weight=codes, a__weight_scale_inv=scale, b=plain)
    assert checkpoint.weights.keys() == {"a.weight", "b"}
    assert "quantization_config" not in checkpoint.config
    weight = checkpoint.weights["a.weight"]
    assert isinstance(weight, Fp8Tensor) and weight.shape == (130, 40) and weight.blocks() is None
    assert weight.location() is None  # as numbers they lie nowhere
    assert weight.codes.location() is not None and weight.scale.shape == (2, 1)
    assert np.array_equal(weight.codes.float32(), codes.astype(np.float32))


def test_missing_misshapen_and_spare_scales_are_named(tmp_path: Path) -> None:
    codes, scale = to_fp8(np.ones((130, 40), np.float32), (128, 128))
    with pytest.raises(BuildError) as caught:
        opened(tmp_path / "m", a=codes, b=codes, b_scale_inv=scale[:1], c=codes, c_scale_inv=scale[:, :0],
               d_scale_inv=scale, e=np.ones((130, 40), np.float32), e_scale_inv=scale)  # fmt: skip
    for said in (
        "a is of type F8_E4M3 and has no a_scale_inv",
        "b_scale_inv is F32 [1, 1]; [130, 40] wants [2, 1] of type F32, BF16, F16",
        "c_scale_inv is F32 [2, 0]",
        "d_scale_inv belongs to nothing",
        "e_scale_inv belongs to a tensor of type F32",
    ):
        assert said in str(caught.value)


def test_many_wrong_scales_are_counted(tmp_path: Path) -> None:
    codes, _ = to_fp8(np.ones((2, 2), np.float32), (128, 128))
    with pytest.raises(BuildError, match=r"t0 is .* and 5 more"):
        opened(tmp_path / "m", **{f"t{i}": codes for i in range(15)})


@pytest.mark.parametrize(
    ("quantization", "named"),
    [
        ({"quant_method": "aqlm", "bits": 2}, r"quant_method = 'aqlm'"),
        ({"quant_method": "hqq"}, r"quant_method = 'hqq'"),
        ({"quant_method": "mxfp4"}, r"quant_method = 'mxfp4'"),
        (QUANTIZATION | {"fmt": "e5m2"}, r"fmt = 'e5m2' \(only 'e4m3' or"),
        (QUANTIZATION | {"fmt": ["e4m3"]}, r"fmt = \['e4m3'\]"),
        (QUANTIZATION | {"expert_dtype": "fp4"}, r"expert_dtype = 'fp4' \(only 'fp8' is read\)"),
        (QUANTIZATION | {"weight_block_size": [128]}, r"weight_block_size = \[128\] \(two numbers are expected\)"),
        (QUANTIZATION | {"weight_block_size": [128, True]}, r"weight_block_size = \[128, True\]"),
        (QUANTIZATION | {"weight_block_size": [0, 128]}, r"weight_block_size = \[0, 128\]"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, r"quant_algo = 'NVFP4' \(read are 'FP8'"),
        ({"quant_method": ["fp8"]}, r"quant_method = \['fp8'\] \(read are 'fp8', 'fbgemm_fp8', 'compressed-tensors'"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, r"format = 'pack-quantized'"),
        (compressed(num_bits=4, strategy="token"), r"num_bits = 4 .*strategy = 'token'"),
        (compressed(strategy="group"), r"group_size = None \(a number is expected\)"),
        (compressed(num_bits=3, type="int", strategy="block"), r"num_bits = 3 .*strategy = 'block'"),
        (compressed(strategy="block"), r"block_structure = None"),
        (compressed(symmetric=False), r"symmetric = False \(only True is read\)"),
        ({"quant_method": "compressed-tensors"}, r"config_groups = None \(groups with weights are expected\)"),
        (QUANTIZATION | {"act_scale": 2}, r"act_scale = 2 \(not understood\)"),
        ("fp8", r"is 'fp8', not an object"),
    ],
)
def test_other_quantizations_stop_the_build_by_name(tmp_path: Path, quantization: Any, named: str) -> None:
    with pytest.raises(BuildError, match=named):
        opened(tmp_path / "m", {"quantization_config": quantization}, w=np.ones(3, np.float32))


def test_fp8_without_a_word_in_the_config_is_refused(tmp_path: Path) -> None:
    codes, scale = to_fp8(np.ones((2, 2), np.float32), (128, 128))
    with pytest.raises(BuildError, match=r"w is of type F8_E4M3 and config\.json has no quantization_config"):
        opened(tmp_path / "m", {"quantization_config": None}, w=codes, w_scale_inv=scale)
