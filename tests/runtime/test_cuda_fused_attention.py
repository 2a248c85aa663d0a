"""Attention of the fused decode kernel, computed on a CPU, against NumPy. Run: pytest tests/runtime/test_cuda_fused_attention.py
(needs g++)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fakes.host_kernels import HostMemory, compile_for_host
from support.cuda_emulation import needs_compiler
from support.decode_reference import FP8, DenseModel, bits, numbers
from support.fused_steps import Trial, shape_of
from triune_runtime.targets.cuda.fused import shape
from triune_runtime.targets.cuda.fused.decoder import define_options, kernel_source
from triune_runtime.targets.cuda.fused.shape import Gpu, cut

SMALL = DenseModel(1, 64, 6, 2, 64, 64, 32, "bfloat16", bias=False, qk_norm=False, tied=True, positions=2048)
WIDE = dataclasses.replace(SMALL, heads=2, kv_heads=1, head_dim=128, dtype="float16", qk_norm=True, weights={})
ALONE = dataclasses.replace(SMALL, heads=8, kv_heads=1, weights={})  # as many heads of queries as can share one
MIXED = [1, 31, 32, 33, 127, 128, 129, 0]
ROOMY = 1 << 20


def in_eight_bits(model: DenseModel) -> DenseModel:
    return dataclasses.replace(model, cache=FP8, weights={})


@needs_compiler
@pytest.mark.parametrize("direct", [0, 2, 16], ids=["last block merges", "either", "readers merge"])
@pytest.mark.parametrize(
    ("model", "lengths", "blocks"),
    [
        pytest.param(SMALL, [513], 12, id="one of 513"),
        pytest.param(ALONE, [2000, 255], 10, id="two, of which one takes several tiles"),
        pytest.param(in_eight_bits(WIDE), [127, 513, 0, 700], 24, id="four, fp8"),
    ],
)
def test_splits_are_merged(
    model: DenseModel, lengths: list[int], blocks: int, direct: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, gpu = len(lengths), Gpu(blocks, ROOMY)
    monkeypatch.setattr(shape, "DIRECT_BYTES", direct * 4 * batch * model.heads * model.head_dim)
    work = cut(shape_of(model, 32), batch, gpu)
    assert work is not None and int(work.constants["SPLITS"]) > 2, "else there is nothing to merge"
    trial = Trial(model, lengths, gpu, 32, tmp_path)
    trial.step()
    trial.step()  # the same again: counters are as they were
    trial.advance()
    trial.step()


@needs_compiler
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SMALL, id="bfloat16"),
        pytest.param(in_eight_bits(SMALL), id="bfloat16 and fp8"),
        pytest.param(in_eight_bits(WIDE), id="float16 and fp8"),
        pytest.param(dataclasses.replace(SMALL, window=40, weights={}), id="a window"),
        pytest.param(dataclasses.replace(in_eight_bits(WIDE), window=1, weights={}), id="a window of one"),
    ],
)
def test_sequences_of_any_length_on_few_blocks(model: DenseModel, tmp_path: Path) -> None:
    trial = Trial(model, MIXED, Gpu(3, ROOMY), 16, tmp_path)  # each block attends to several parts
    trial.step()
    trial.advance()
    trial.step()


@needs_compiler
@pytest.mark.parametrize("window", [17, 128, 300])
def test_a_window_of_a_long_sequence_is_in_splits(window: int, tmp_path: Path) -> None:
    model = dataclasses.replace(SMALL, window=window, weights={})
    trial = Trial(model, [1030], Gpu(12, ROOMY), 64, tmp_path)
    trial.step()
    trial.advance()
    trial.step()


@needs_compiler
@pytest.mark.parametrize("direct", [0, 16], ids=["last block merges", "readers merge"])
def test_a_step_has_the_same_bits_whichever_block_is_through_last(
    direct: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape, "DIRECT_BYTES", direct * 4 * SMALL.heads * SMALL.head_dim)
    trial = Trial(SMALL, [513], Gpu(12, ROOMY), 16, tmp_path)
    found = []
    for block in (0, 3, 7):
        trial.kernels[0].begin_with(block)
        trial.step()
        found.append(trial.memory.read(trial.logits_at, (SMALL.vocabulary,), np.uint32).tolist())
    assert found[0] == found[1] == found[2]


CONVERT = """
extern "C" __global__ void convert(const number* from, stored* codes, number* back) {
    for (int i = threadIdx.x; i < 1 << 16; i += THREADS) codes[i] = to_stored(from[i]);
    sync_block();
    for (int i = threadIdx.x; i < 1 << 13; i += THREADS) ((uint4*)back)[i] = numbers_of(((const Eight*)codes)[i]);
}
"""


@needs_compiler
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_eight_bit_floats_are_the_nearest_and_come_back_exactly(dtype: str, tmp_path: Path) -> None:
    model = dataclasses.replace(in_eight_bits(SMALL), dtype=dtype, weights={})
    work, memory = cut(shape_of(model, 16), 1, Gpu(2, ROOMY)), HostMemory()
    assert work is not None
    kernel = compile_for_host(tmp_path)(kernel_source() + CONVERT, "convert", define_options(work.constants))
    every = np.arange(1 << 16, dtype=np.uint16)
    places = [memory.put(every), memory.allocate(1 << 16), memory.allocate(2 << 16)]
    kernel.launch(0, (1, 1, 1), (256, 1, 1), [np.uint64(place) for place in places])
    codes, back = memory.read(places[1], (1 << 16,), np.uint8), memory.read(places[2], (1 << 16,), np.uint16)
    values = numbers(every, dtype)
    is_number = ~np.isnan(values)
    assert np.array_equal(codes[is_number], bits(values, FP8)[is_number])
    assert np.isnan(numbers(codes[~is_number], FP8)).all()
    assert np.array_equal(numbers(back, dtype)[is_number], numbers(codes, FP8)[is_number])
