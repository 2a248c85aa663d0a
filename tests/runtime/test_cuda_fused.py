"""The fused decode kernel, computed on a CPU, against NumPy. Run: pytest tests/runtime/test_cuda_fused.py (needs g++)"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from support.cuda_emulation import needs_compiler
from support.decode_reference import DenseModel
from support.fused_steps import Trial, shape_of
from triune_runtime.targets.cuda.fused.decoder import supports
from triune_runtime.targets.cuda.fused.shape import DecoderShape, Gpu, cut

QWEN2 = DenseModel(2, 192, 12, 2, 64, 640, 200, "bfloat16", bias=True, qk_norm=False, tied=True)  # 6 heads share one
QWEN3 = DenseModel(2, 128, 8, 2, 64, 1152, 96, "float16", bias=False, qk_norm=True, tied=False)  # 4 heads share one
LLAMA = DenseModel(1, 64, 2, 2, 128, 192, 64, "bfloat16", bias=False, qk_norm=False, tied=False)  # each has its own
INT4 = DenseModel(  # no row is as long as the whole stretches of a warp
    2, 320, 12, 2, 64, 1216, 200, "float16", bias=True, qk_norm=False, tied=False, quantized=True
)
INT4_LONG = DenseModel(1, 512, 4, 2, 128, 2560, 96, "float16", bias=False, qk_norm=True, tied=False, quantized=True)
ROOMY, SMALL, SMALL_INT4 = 1 << 20, 166_000, 146_000  # bytes of shared memory; in SMALL the longest vector lies in parts


@needs_compiler
@pytest.mark.parametrize(
    ("model", "lengths", "gpu", "block_tokens"),
    [
        pytest.param(QWEN2, [300], Gpu(6, ROOMY), 16, id="one long sequence, in splits"),
        pytest.param(QWEN3, [0, 1, 15, 16, 33, 64, 7, 127], Gpu(3, SMALL), 32, id="eight short ones, vectors in parts"),
        pytest.param(LLAMA, [129, 31], Gpu(9, ROOMY), 128, id="two, of which one is in splits"),
        pytest.param(QWEN2, [40, 0, 200, 17], Gpu(3, ROOMY), 64, id="four, of any length"),
        pytest.param(INT4, [150], Gpu(5, ROOMY), 16, id="int4, one"),
        pytest.param(INT4, [3, 20], Gpu(2, ROOMY), 16, id="int4, two on few blocks"),
        pytest.param(INT4_LONG, [40, 0, 130, 17], Gpu(7, ROOMY), 64, id="int4, four"),
        pytest.param(INT4_LONG, [0, 1, 15, 16, 33, 64, 7, 127], Gpu(3, SMALL_INT4), 32, id="int4, eight, vectors in parts"),
    ],
)
def test_steps_equal_numpy(model: DenseModel, lengths: list[int], gpu: Gpu, block_tokens: int, tmp_path: Path) -> None:
    trial = Trial(model, lengths, gpu, block_tokens, tmp_path)
    trial.step()
    trial.advance()
    trial.step()  # the counters of the first step are as they were before it


@pytest.mark.parametrize(("model", "shared_bytes"), [(QWEN3, SMALL), (INT4_LONG, SMALL_INT4)], ids=["float16", "int4"])
def test_vectors_that_do_not_fit_come_in_parts(model: DenseModel, shared_bytes: int) -> None:
    work = cut(shape_of(model, 32), 8, Gpu(3, shared_bytes))
    assert work is not None and int(work.constants["LOADED"]) < model.intermediate


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_block_has_the_memory_that_is_cut(batch: int) -> None:
    shape = DecoderShape(
        layers=28, hidden=1536, heads=12, kv_heads=2, head_dim=128, intermediate=8960, vocabulary=151936, epsilon=1e-6,
        dtype="bfloat16", block_tokens=128, qkv_bias=True,
    )  # fmt: skip
    for gpu in (Gpu(132, 232_448), Gpu(108, 166_912), Gpu(128, 101_376)):
        work = cut(shape, batch, gpu)
        assert work is not None and work.shared_bytes <= gpu.shared_bytes


@pytest.mark.parametrize(
    "change",
    [{"head_dim": 96}, {"heads": 5}, {"heads": 32}, {"hidden": 200}, {"intermediate": 8961}, {"hidden": 65536}],
    ids=str,
)
def test_what_the_kernel_does_not_compute_is_not_supported(change: dict[str, int]) -> None:
    shape = shape_of(QWEN2, 16)
    assert supports(shape, 8, Gpu(132, 232_448))
    assert not supports(dataclasses.replace(shape, **change), 8, Gpu(132, 232_448))
    assert not supports(shape, 3, Gpu(132, 232_448))
