"""Weights of TensorRT engines: a checkpoint's own blocks are carried, the rest is rounded as its form allows.

Run: pytest tests/builder/test_tensorrt_weights.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from fakes.safetensors_writer import to_fp8, write_tensors
from fakes.tensorrt_engines import difference, lowered, quantized, tiny
from fakes.tiny_llama import FakeTensor, byte_tokenizer
from triune_builder.checkpoint import Blocks, Fp8Tensor, open_checkpoint
from triune_builder.graph.weights import WeightSource
from triune_builder.targets.tensorrt.fp8 import _codes
from triune_builder.verify import reference


@dataclasses.dataclass(frozen=True)
class BlockTensor(FakeTensor):
    """A matrix that the checkpoint holds in four-bit blocks of 32 with a minimum each, as Q4_1."""

    held: Blocks | None = None

    def blocks(self) -> Blocks | None:  # type: ignore[override]  # the plain fake has none
        return self.held


def in_blocks(weight: NDArray[np.float32]) -> BlockTensor:
    split = weight.reshape(len(weight), -1, 32)
    low, high = (f(split, -1).astype(np.float16).astype(np.float32) for f in (np.min, np.max))
    scale = ((high - low) / 15).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint((split - low[..., None]) / scale[..., None]), 0, 15).astype(np.uint8).reshape(weight.shape)
    held = Blocks(codes=codes, scale=scale, minimum=low)
    values = codes.reshape(split.shape) * scale[..., None] + low[..., None]
    return BlockTensor(values.reshape(weight.shape).astype(np.float32), held=held)


def test_four_bit_blocks_with_minima_are_carried_without_a_loss(tmp_path: Path) -> None:
    checkpoint = tiny("llama")
    names = [n for n in checkpoint.weights if "_proj" in n]
    blocked = {n: in_blocks(checkpoint.weights[n].array) for n in names}
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, **blocked})
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 256, 12)]
    expected = next(reference.score(checkpoint.config, checkpoint.weights, [tokens], [[11]])).logits[0]
    found = lowered(checkpoint, "int4", tmp_path).runner().run(0, [tokens], [0], [11])[0, 0]
    assert difference(found, expected) < 0.06  # eight-bit blocks of the head, and halves
    own = quantized(tiny("llama"), "int4").model.graph.initializers
    assert not any(name.endswith(".rest") for name in own)


def test_fp8_blocks_of_the_checkpoint_keep_their_codes(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(300, 256)).astype(np.float32)
    codes, scale = to_fp8(weight, (128, 128))
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": quantization}))
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    write_tensors(tmp_path / "model.safetensors", {"w": codes, "w_scale_inv": scale})
    tensor = open_checkpoint(str(tmp_path), cache=tmp_path / "cache").weights["w"]
    assert isinstance(tensor, Fp8Tensor)
    carried, scales = _codes(WeightSource("w", (tensor,)))
    assert np.array_equal(carried.view(np.uint8), codes.view(np.uint8))
    assert np.array_equal(scales, np.repeat(scale, 128, axis=0)[:300])


def test_fp8_codes_of_float_weights_are_the_nearest_and_never_overflow() -> None:
    random = np.random.default_rng(2)
    weight = (random.normal(size=(64, 384)) * np.exp(random.normal(size=(64, 1)) * 3)).astype(np.float32)
    codes, scale = _codes(WeightSource("w", (FakeTensor(weight),)))
    values = codes.astype(np.float32).reshape(64, 3, 128) * scale[..., None]
    assert np.isfinite(values).all() and np.array_equal(scale, scale.astype(np.float16).astype(np.float32))
    error = np.abs(values.reshape(weight.shape) - weight)
    assert (error <= np.maximum(np.abs(weight) / 16, np.repeat(scale, 128, axis=1) * 2**-10) * 1.001).all()
    assert codes.dtype == ml_dtypes.float8_e4m3fn
