"""Schemes lose what they say, carried blocks lose nothing, smoothing changes no function.

Run: pytest tests/builder/test_quantize.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.block_tensors import BlockTensor
from fakes.engines import BLOCK_SIZES, float_logits, made_up_maxima
from fakes.tiny_llama import FakeTensor, tiny_checkpoint
from triune_builder.checkpoint import Blocks
from triune_builder.errors import BuildError
from triune_builder.graph.export import export
from triune_builder.graph.weights import WeightSource
from triune_builder.quantize.apply import quantize
from triune_builder.quantize.schemes.blocks import BLOCK, carry_blocks, quantize_blocks
from triune_builder.quantize.schemes.blocks import Blocks as SchemeBlocks
from triune_builder.quantize.schemes.rows import quantize_rows
from triune_builder.quantize.smooth import smooth
from triune_builder.quantize.statistics import MAXIMA
from triune_builder.targets import onnx_files
from triune_builder.targets.cpu.precisions import find_precision

weights = st.builds(
    lambda seed, rows, blocks, size: np.float32(np.random.default_rng(seed).normal(size=(rows, blocks * BLOCK)) * size),
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1e-6, 1.0, 1e4]),
)  # fmt: skip


@given(weights)
def test_row_codes_are_within_half_a_step(weight: np.ndarray) -> None:
    result = quantize_rows(weight)
    assert (np.abs(result.values() - weight) <= result.scale[:, None] * 0.5001).all()


@given(weights, st.sampled_from([4, 8]), st.booleans())
def test_block_codes_are_within_a_step(weight: np.ndarray, bits: int, symmetric: bool) -> None:
    result = quantize_blocks(weight, bits, symmetric=symmetric)
    step = np.repeat(result.scale, BLOCK, axis=1)
    assert (np.abs(result.values() - weight) <= step * 1.001).all()  # half a step, and the zero point's rounding
    assert result.codes.max() < 2**bits


def test_a_row_of_zeros_stays_zero() -> None:
    zeros = np.zeros((2, BLOCK), np.float32)
    assert not quantize_rows(zeros).values().any()
    assert not quantize_blocks(zeros, 4).values().any()


def four_bit_blocks(seed: int, rows: int = 3, blocks: int = 2) -> Blocks:
    random = np.random.default_rng(seed)
    scale = random.uniform(0.01, 1, (rows, blocks)).astype(np.float32)
    return Blocks(
        codes=random.integers(0, 16, (rows, blocks * BLOCK)).astype(np.uint8),
        scale=scale,
        minimum=(-scale * random.uniform(4, 11, scale.shape)).astype(np.float32),
        bits=4,
    )


def block_values(blocks: Blocks) -> np.ndarray:
    """From the definition: scale * code + minimum, one block at a time."""
    out = np.empty(blocks.codes.shape, np.float64)
    for row, column in np.ndindex(*out.shape):
        at = (row, column // BLOCK)
        assert blocks.minimum is not None
        out[row, column] = float(blocks.scale[at]) * int(blocks.codes[row, column]) + float(blocks.minimum[at])
    return out


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_blocks_of_the_checkpoint_are_carried_exactly_in_their_own_bits(seed: int) -> None:
    blocks = four_bit_blocks(seed)
    carried = carry_blocks(blocks, bits=4)
    assert carried is not None
    assert np.array_equal(carried.codes, blocks.codes)
    np.testing.assert_allclose(carried.values(), block_values(blocks), rtol=0, atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_four_bit_blocks_in_eight_bits_move_by_at_most_a_32nd_of_a_step(seed: int) -> None:
    blocks = four_bit_blocks(seed)
    carried = carry_blocks(blocks, bits=8)
    assert carried is not None
    step = np.repeat(blocks.scale, BLOCK, axis=1)
    assert (np.abs(carried.values() - block_values(blocks)) <= step / 32 * 1.001).all()


def test_blocks_whose_zero_lies_outside_of_the_finer_grid_are_rounded_anew() -> None:
    """A block far from zero, and one that holds one number 32 times, which has no step at all."""
    codes = np.random.default_rng(0).integers(0, 16, (1, 3 * BLOCK)).astype(np.uint8)
    scale, minimum = np.float32([[0.1, 0.01, 0.0]]), np.float32([[-0.8, -5.0, -0.25]])
    blocks = Blocks(codes=codes, scale=scale, minimum=minimum, bits=4)
    carried = carry_blocks(blocks, bits=8)
    assert carried is not None and "2 of 3 rounded anew" in carried.note
    steps = [0.1 / 32, 5.0 / 255, 0.25 / 255]  # half a step and the zero's rounding, of a grid that has a zero
    error = np.abs(carried.values() - block_values(blocks)).reshape(3, BLOCK).max(axis=1)
    assert (error <= np.array(steps) * 1.001).all(), error


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_parts_are_carried_where_they_fit_and_rounded_where_they_do_not(seed: int) -> None:
    """Files hold values in more bits than queries and keys: those are still carried exactly."""
    exact, wide = four_bit_blocks(seed), np.random.default_rng(seed).normal(size=(2, 2 * BLOCK)).astype(np.float32)
    parts = (BlockTensor(block_values(exact).astype(np.float32), held=exact), FakeTensor(wide))
    made = SchemeBlocks(bits=4).make(WeightSource("qkv", parts), {})
    assert np.array_equal(made.codes[:3], exact.codes) and np.array_equal(made.offset[:3], exact.minimum)
    assert np.array_equal(made.codes[3:], quantize_blocks(wide, 4).codes)
    assert made.note == "checkpoint blocks carried exactly; the rest rounded to nearest"


def test_eight_bit_blocks_do_not_fit_four_bits() -> None:
    random = np.random.default_rng(0)
    eight = Blocks(
        codes=random.integers(-127, 128, (2, BLOCK)).astype(np.int8), scale=np.ones((2, 1), np.float32), minimum=None, bits=8
    )
    assert carry_blocks(eight, bits=4) is None


@pytest.mark.parametrize("tied", [True, False])
def test_smoothing_changes_the_weights_and_not_the_function(tied: bool, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tie_word_embeddings=tied, **BLOCK_SIZES)
    tokens = [[7, 1, 200, 30, 4, 9]]
    plain = float_logits(export(checkpoint, max_length=16), tmp_path, tokens)  # type: ignore[arg-type]
    bundle = export(checkpoint, max_length=16)  # type: ignore[arg-type]
    done = smooth(bundle.model, bundle.sources, made_up_maxima(checkpoint, unevenness=2.0)[MAXIMA])
    # Per layer: attention's input, the MLP's input and the down projection's; and the head.
    assert len(done) == 3 * checkpoint.config["num_hidden_layers"] + 1
    np.testing.assert_allclose(float_logits(bundle, tmp_path, tokens), plain, rtol=0, atol=2e-4 * np.abs(plain).max())


def test_last_bits_of_the_calibration_do_not_reach_the_weights() -> None:
    """Processors sum in orders of their own: an engine must not tell on which of them it was built."""
    checkpoint, rng, made = tiny_checkpoint(**BLOCK_SIZES), np.random.default_rng(7), []
    maxima = made_up_maxima(checkpoint, unevenness=2.0)[MAXIMA]
    for _ in range(2):
        bundle = export(checkpoint, max_length=16)  # type: ignore[arg-type]
        smooth(bundle.model, bundle.sources, maxima)
        made.append({name: source.float32() for name, source in bundle.sources.items()})
        maxima = {name: found * (1 + 1e-8 * rng.uniform(-1, 1, found.shape)) for name, found in maxima.items()}
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize("precision", ["int8", "int4", "w8a8"])
def test_quantized_graph_stays_near_the_float_graph_and_names_every_weight(precision: str, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    tokens = [[7, 1, 200, 30, 4, 9]]
    plain = float_logits(export(checkpoint, max_length=16), tmp_path, tokens)  # type: ignore[arg-type]
    bundle = export(checkpoint, max_length=16)  # type: ignore[arg-type]
    result = quantize(bundle, find_precision(precision), made_up_maxima(checkpoint))
    got = float_logits(bundle, tmp_path, tokens)
    names = {c.name for c in result.changes}
    layers = checkpoint.config["num_hidden_layers"]
    assert len(names) == 4 * layers + 2, names  # four products a layer, the head, the embedding table
    assert all(0 < c.error < 0.2 for c in result.changes), result.changes
    error = np.sqrt(np.mean((got - plain) ** 2) / np.mean(plain**2))
    assert 0 < error < (0.5 if precision == "int4" else 0.08)


def test_quantizing_needs_a_calibration_where_it_smooths() -> None:
    bundle = export(tiny_checkpoint(**BLOCK_SIZES), max_length=16)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="given no calibration"):
        quantize(bundle, find_precision("w8a8"))


def test_inputs_that_are_no_numbers_are_refused_by_name() -> None:
    checkpoint = tiny_checkpoint(head_dim=16, hidden_size=64, intermediate_size=96)
    maxima = made_up_maxima(checkpoint)
    name = next(iter(maxima[MAXIMA]))
    maxima[MAXIMA][name][0] = np.nan
    with pytest.raises(BuildError, match=f"no number, such as the input of {name}"):
        quantize(export(checkpoint, max_length=16), find_precision("w8a8"), maxima)


@pytest.mark.parametrize("inside", [False, True], ids=["beside the graph", "in the graph"])
@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("precision", ["int8", "w8a8"])
def test_weights_that_no_code_stands_for_are_refused_by_name(
    tmp_path: Path, precision: str, number: float, inside: bool, recwarn: pytest.WarningsRecorder
) -> None:
    name = "model.embed_tokens.weight"
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    bundle = export(checkpoint, max_length=16)  # type: ignore[arg-type]
    quantize(bundle, find_precision(precision), made_up_maxima(checkpoint))
    checkpoint.weights[name].array[0, :2] = number, -number
    with pytest.raises(BuildError, match=f"{name} has numbers that are not finite, or far too large"):
        onnx_files.write(bundle, tmp_path, outside=lambda tensor: not inside)
    assert not list(recwarn)


def test_columns_that_no_block_divides_are_refused() -> None:
    bundle = export(tiny_checkpoint(intermediate_size=48), max_length=16)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match="has 48 columns"):
        quantize(bundle, find_precision("int8"))


def test_an_unknown_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="known: fp32, bf16, fp16, fp8, int8, int4, w8a8"):
        find_precision("int3")


def test_writing_holds_few_weights_in_memory(tmp_path: Path) -> None:
    """Every weight is read a fixed number of times, one after the other, and none is kept."""
    checkpoint = tiny_checkpoint(**BLOCK_SIZES)
    bundle = export(checkpoint, max_length=16)  # type: ignore[arg-type]
    quantize(bundle, find_precision("w8a8"), made_up_maxima(checkpoint))
    onnx_files.write(bundle, tmp_path)
    reads = {n: len(t.reads) for n, t in checkpoint.weights.items() if isinstance(t, FakeTensor)}
    assert max(reads.values()) <= 6, reads
