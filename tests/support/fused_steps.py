"""Steps of the fused decode kernel on the CPU: a model and its caches in memory, and its logits and caches beside NumPy's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fakes.host_kernels import HostKernel, HostMemory, compile_for_host
from support.decode_reference import FP8, DenseModel, bits, decode, numbers, rounded
from triune_runtime.targets.cuda.fused.decoder import FusedDecoder, StepAddresses
from triune_runtime.targets.cuda.fused.shape import DecoderShape, DecoderWeights, Gpu, LayerWeights

ERRORS = {"bfloat16": 1.2e-2, "float16": 2e-3}  # of logits, relative to their norm: what rounding otherwise makes
FP8_ERROR = 2e-2  # the same, where a new token's numbers may be rounded to the next of few


def shape_of(model: DenseModel, block_tokens: int) -> DecoderShape:
    return DecoderShape(
        layers=model.layers, hidden=model.hidden, heads=model.heads, kv_heads=model.kv_heads, head_dim=model.head_dim,
        intermediate=model.intermediate, vocabulary=model.vocabulary, epsilon=model.epsilon, dtype=model.dtype,
        block_tokens=block_tokens, qkv_bias=model.bias, qk_norm=model.qk_norm, weight_bits=4 if model.quantized else 16,
        head_bits=8 if model.quantized else 16, fp8_cache=model.cache == FP8, window=model.window,
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
        self.cache_type = model.cache or model.dtype
        places = np.full(
            cache[:2], np.nan
        )  # of the tokens in their sequences; what nobody wrote is not read, or does not count
        for n, length in enumerate(lengths):
            for place in range(length):
                places[self.table[n, place // block_tokens], place % block_tokens] = place
        drift = np.cos(places / 40)[..., None, None]  # so that it shows which tokens count
        self.caches = [
            rounded(random.standard_normal(cache) + 2 * drift * random.standard_normal(cache[2:]), self.cache_type)
            for _ in range(2 * model.layers)
        ]
        self.cache_at = [memory.put(bits(c, self.cache_type)) for c in self.caches]
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
        self.kernels: list[HostKernel] = []

        def compile_kernel(source: str, name: str, options: tuple[str, ...]) -> HostKernel:
            self.kernels.append(compile_for_host(folder)(source, name, options))
            return self.kernels[-1]

        self.decoder = FusedDecoder(
            shape_of(model, block_tokens), len(lengths), gpu, device=memory, compile_kernel=compile_kernel
        )
        self.decoder.bind(weights)

    def rows(self, cache: np.ndarray, sequence: int, length: int) -> np.ndarray:
        """Of a cache [blocks, block_tokens, kv_heads, head_dim] a sequence's rows."""
        return cache[self.table[sequence]].reshape(-1, *cache.shape[2:])[:length]

    def step(self) -> None:
        """Run one, and compare its logits and all of the caches."""
        model = self.model
        self.decoder.enqueue(0, self.addresses)
        logits = self.memory.read(self.logits_at, (len(self.lengths), model.vocabulary), np.float32)
        kind, apart, error_bound = np.uint16, 3e-2, ERRORS[model.dtype]  # bits; of the new rows; of logits
        if self.cache_type == FP8:
            kind, apart, error_bound = np.uint8, 0.14, FP8_ERROR
        stored = [self.memory.read(at, self.caches[0].shape, kind) for at in self.cache_at]
        found = [numbers(cache, self.cache_type) for cache in stored]
        for n, length in enumerate(self.lengths):
            past = [self.rows(c, n, length) for c in self.caches]
            expected, keys, values = decode(model, int(self.tokens[n]), past[::2], past[1::2])
            error = np.linalg.norm(logits[n] - expected) / np.linalg.norm(expected)
            assert error < error_bound, f"sequence {n} of {length} tokens: {error:.1e}"
            rows = [row for pair in zip(keys, values, strict=True) for row in pair]
            for cache, now, row in zip(self.caches, found, rows, strict=True):
                block, place = self.table[n, length // self.block_tokens], length % self.block_tokens
                assert np.allclose(now[block, place], row, rtol=apart, atol=3e-2)
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
