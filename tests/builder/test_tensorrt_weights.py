"""Weights of TensorRT engines: a checkpoint's own blocks are carried, the rest is rounded as its form allows.

Run: pytest tests/builder/test_tensorrt_weights.py
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fakes.block_tensors import in_blocks
from fakes.definitions import difference
from fakes.tensorrt_engines import lowered, quantized, tiny
from triune_builder.verify import reference


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
