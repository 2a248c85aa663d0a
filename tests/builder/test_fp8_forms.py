"""FP8 checkpoints in every form that publishers use. Run: pytest tests/builder/test_fp8_forms.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tokenizers import Tokenizer, models

from fakes.safetensors_writer import write_tensors
from triune_builder.checkpoint import Checkpoint, Fp8Tensor, open_checkpoint
from triune_builder.errors import BuildError

ROWS, COLUMNS = 130, 40
BLOCK = (16, 24)
FINE = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(BLOCK)}
PLAIN = {"quant_method": "fp8", "activation_scheme": "static"}


def group(strategy: str, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False} | more
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"weights": weights}},
    }


# What transformers 5 writes of `FineGrainedFP8Config`, whatever was asked for.
SAVED = FINE | {
    "dequantize": False, "modules_to_not_convert": ["lm_head"], "modules_to_convert": None, "expert_dtype": "fp8",
    "ignored_layers": None, "scale_fmt": "float",
}  # fmt: skip
# config, what the scales are of (rows and columns), how their name ends, their shape where it is not that of the blocks
FORMS: dict[str, tuple[dict[str, Any], tuple[int, int], str, tuple[int, ...] | None]] = {
    "blocks": (FINE, BLOCK, "_scale_inv", None),
    "blocks as transformers 5 saves them": (SAVED, BLOCK, "_scale_inv", None),
    "blocks of a missing size": ({"quant_method": "fp8"}, (128, 128), "_scale_inv", None),
    "blocks under the other name": (FINE, BLOCK, "_scale", None),
    "one of transformers": (
        FINE | {"weight_block_size": None, "activation_scheme": "static"},
        (ROWS, COLUMNS),
        "_scale_inv",
        (),
    ),
    "one of vLLM": (PLAIN | {"ignored_layers": ["lm_head"]}, (ROWS, COLUMNS), "_scale", (1,)),
    "one in a matrix": (PLAIN, (ROWS, COLUMNS), "_scale", None),
    "rows of FBGEMM": ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, (1, COLUMNS), "_scale", None),
    "rows of llm-compressor": (group("channel"), (1, COLUMNS), "_scale", None),
    "rows in a vector": (group("channel"), (1, COLUMNS), "_scale", (ROWS,)),
    "one of llm-compressor": (group("tensor"), (ROWS, COLUMNS), "_scale", (1,)),
    "blocks of llm-compressor": (group("block", block_structure=list(BLOCK)), BLOCK, "_scale", None),
    "groups of llm-compressor": (group("group", group_size=8), (1, 8), "_scale", None),
    "one of Model Optimizer": ({"quant_method": "modelopt", "quant_algo": "FP8"}, (ROWS, COLUMNS), "_scale", ()),
}


def opened(folder: Path, quantization: Any, tensors: dict[str, Any]) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    (folder / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    write_tensors(folder / "model.safetensors", tensors)
    return open_checkpoint(str(folder), cache=folder)


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["F32", "F16", "BF16"])
@pytest.mark.parametrize("form", FORMS)
def test_every_value_is_its_code_times_the_scale_of_its_block(tmp_path: Path, form: str, stored: Any) -> None:
    quantization, (high, wide), ending, shape = FORMS[form]
    random = np.random.default_rng(3)
    codes = random.standard_normal((ROWS, COLUMNS)).astype(ml_dtypes.float8_e4m3fn)
    scales = random.uniform(0.5, 2, (-(-ROWS // high), -(-COLUMNS // wide))).astype(stored)
    expected = np.empty((ROWS, COLUMNS), np.float32)
    for i in range(ROWS):
        for j in range(COLUMNS):
            expected[i, j] = np.float32(codes[i, j]) * np.float32(scales[i // high, j // wide])
    tensors = {
        "a.weight": codes,
        f"a.weight{ending}": scales if shape is None else scales.reshape(shape),
        "a.input_scale": np.ones(1, np.float32),
        "a.activation_scale": np.ones((), np.float32),
        "attn.k_scale": np.ones(1, np.float32),
        "b.weight": np.ones((3, 5), ml_dtypes.bfloat16),  # a module that was not converted
    }
    checkpoint = opened(tmp_path / "m", quantization, tensors)
    assert checkpoint.weights.keys() == {"a.weight", "b.weight"} and "quantization_config" not in checkpoint.config
    weight = checkpoint.weights["a.weight"]
    assert isinstance(weight, Fp8Tensor) and weight.scale.shape == scales.shape
    assert np.array_equal(weight.float32(), expected)


def test_a_scale_of_another_shape_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    codes = np.ones((ROWS, COLUMNS), ml_dtypes.float8_e4m3fn)
    with pytest.raises(BuildError, match=r"w_scale is F32 \[3\]; \[130, 40\] wants \[130, 1\] or \[1, 1\] or \[2, 1\] of type"):
        opened(tmp_path / "m", PLAIN, {"w": codes, "w_scale": np.ones(3, np.float32)})
    with pytest.raises(BuildError, match=r"w is of type F8_E4M3 and has no w_scale"):
        opened(tmp_path / "m", PLAIN, {"w": codes})
