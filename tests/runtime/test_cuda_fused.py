"""The fused decode kernel, computed on a CPU, against NumPy. Run: pytest tests/runtime/test_cuda_fused.py (needs g++)"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from fakes.host_kernels import HostMemory, compile_for_host
from support.cuda_emulation import needs_compiler
from support.decode_reference import DenseModel, bits, decode, numbers, rounded
from triune_runtime.targets.cuda.fused.decoder import FusedDecoder, StepAddresses, supports
from triune_runtime.targets.cuda.fused.shape import DecoderShape, DecoderWeights, Gpu, LayerWeights, cut

QWEN2 = DenseModel(2, 192, 12, 2, 64, 640, 200, "bfloat16", bias=True, qk_norm=False, tied=True)  # 6 heads share one
QWEN3 = DenseModel(2, 128, 8, 2, 64, 1152, 96, "float16", bias=False, qk_norm=True, tied=False)  # 4 heads share one
LLAMA = DenseModel(1, 64, 2, 2, 128, 192, 64, "bfloat16", bias=False, qk_norm=False, tied=False)  # each has its own
INT4 = DenseModel(  # no row is as long as the whole stretches of a warp
    2, 320, 12, 2, 64, 1216, 200, "float16", bias=True, qk_norm=False, tied=False, quantized=True
)
INT4_LONG = DenseModel(1, 512, 4, 2, 128, 2560, 96, "float16", bias=False, qk_norm=True, tied=False, quantized=True)
ERRORS = {"bfloat16": 1.2e-2, "float16": 2e-3}  # of logits, relative to their norm: what rounding otherwise makes
ROOMY, SMALL, SMALL_INT4 = 1 << 20, 166_000, 146_000  # bytes of shared memory; in SMALL the longest vector lies in parts


def shape_of(model: DenseModel, block_tokens: int) -> DecoderShape:
    return DecoderShape(
        layers=model.layers, hidden=model.hidden, heads=model.heads, kv_heads=model.kv_heads, head_dim=model.head_dim,
        intermediate=model.intermediate, vocabulary=model.vocabulary, epsilon=model.epsilon, dtype=model.dtype,
        block_tokens=block_tokens, qkv_bias=model.bias, qk_norm=model.qk_norm, weight_bits=4 if model.quantized else 16,
        head_bits=8 if model.quantized else 16,
    )  # fmt: skip


class Trial:
    """A model in (host) memory with caches of random numbers, whose blocks lie in any order."""

    def __init__(self, model: DenseModel, lengths: list[int], gpu: Gpu, block_tokens: int, folder: Path) -> None:
        self.model, self.lengths, self.block_tokens = model, lengths, block_tokens
        random = np.random.default_rng(len(lengths))
        self.memory = memory = HostMemory()
        self.most = most = (max(lengths) + 1) // block_tokens + 1  # room for two steps
        self.blocks = most * len(lengths) + 1
        self.table = random.permutation(self.blocks)[: most * len(lengths)].reshape(-1, most).astype(np.int32)
        self.tokens = random.integers(0, model.vocabulary, len(lengths))
        cache = (self.blocks, block_tokens, model.kv_heads, model.head_dim)
        self.caches = [rounded(random.standard_normal(cache), model.dtype) for _ in range(2 * model.layers)]
        written = np.zeros(cache[:2], bool)
        for n, length in enumerate(lengths):
            for place in range(length):
                written[self.table[n, place // block_tokens], place % block_tokens] = True
        for values in self.caches:
            values[~written] = np.nan  # what nobody wrote is not read, or does not count
        self.cache_at = [memory.put(bits(c, model.dtype)) for c in self.caches]
        at = {name: memory.put(bits(values, model.dtype)) for name, values in model.weights.items()}
        at |= {name: memory.put(codes) for name, codes in model.packed.items()}
        names = [f.name for f in dataclasses.fields(LayerWeights) if f.name not in ("keys", "values")]
        layers = [
            LayerWeights(
                **{name: at.get(f"{i}.{name}", 0) for name in names}, keys=self.cache_at[2 * i], values=self.cache_at[2 * i + 1]
            )
            for i in range(model.layers)
        ]
        weights = DecoderWeights(
            layers=tuple(layers), embedding=at["embedding"], norm=at["norm"], head=at.get("head", at["embedding"]),
            cosines=at["cosines"], sines=at["sines"], head_scale=at.get("head_scale", 0),
        )  # fmt: skip
        self.past = memory.put(np.array(lengths, np.int32))
        self.ids = memory.put(self.tokens)
        self.logits_at = memory.allocate(4 * len(lengths) * model.vocabulary)
        self.addresses = StepAddresses(
            input_ids=self.ids, past_seqlens=self.past, block_table=memory.put(self.table), most_blocks=most,
            logits=self.logits_at,
        )  # fmt: skip
        self.decoder = FusedDecoder(
            shape_of(model, block_tokens), len(lengths), gpu, device=memory,
            compile_kernel=compile_for_host(folder),
        )  # fmt: skip
        self.decoder.bind(weights)

    def rows(self, cache: np.ndarray, sequence: int, length: int) -> np.ndarray:
        """Of a cache [blocks, block_tokens, kv_heads, head_dim] a sequence's rows."""
        return cache[self.table[sequence]].reshape(-1, *cache.shape[2:])[:length]

    def step(self) -> None:
        """Run one, and compare its logits and all of the caches."""
        model = self.model
        self.decoder.enqueue(0, self.addresses)
        logits = self.memory.read(self.logits_at, (len(self.lengths), model.vocabulary), np.float32)
        stored = [self.memory.read(at, self.caches[0].shape, np.uint16) for at in self.cache_at]
        found = [numbers(cache, model.dtype) for cache in stored]
        for n, length in enumerate(self.lengths):
            past = [self.rows(c, n, length) for c in self.caches]
            expected, keys, values = decode(model, int(self.tokens[n]), past[::2], past[1::2])
            error = np.linalg.norm(logits[n] - expected) / np.linalg.norm(expected)
            assert error < ERRORS[model.dtype], f"sequence {n} of {length} tokens: {error:.1e}"
            rows = [row for pair in zip(keys, values, strict=True) for row in pair]
            for cache, now, row in zip(self.caches, found, rows, strict=True):
                block, place = self.table[n, length // self.block_tokens], length % self.block_tokens
                assert np.allclose(now[block, place], row, rtol=3e-2, atol=3e-2)
                cache[block, place] = now[block, place]
        for cache, now in zip(self.caches, found, strict=True):
            assert np.array_equal(cache, now, equal_nan=True), "a row of the cache was written that is not the new token's"

    def advance(self) -> None:
        """As if the highest logits' tokens had been chosen."""
        logits = self.memory.read(self.logits_at, (len(self.lengths), self.model.vocabulary), np.float32)
        self.tokens = logits.argmax(1)
        self.lengths = [length + 1 for length in self.lengths]
        self.memory.upload(self.ids, self.tokens)
        self.memory.upload(self.past, np.array(self.lengths, np.int32))


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
