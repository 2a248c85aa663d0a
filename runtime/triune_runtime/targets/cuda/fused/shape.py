"""Sizes and weights of a dense decoder, as the fused kernel takes them, and how its work is cut for a GPU. Integers only."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

BATCHES = (1, 2, 4, 8)  # sequences that a kernel is made for
WARPS = 8  # of a block; 32 threads each
STAGE_BYTES = 2048  # that a warp copies at once: 16 rows of 64 numbers
FEWEST_STAGES = 3  # in flight, of a warp
WANTED_STAGES = 8  # to keep the memory busy while blocks wait for each other
MOST_STAGES = 14
ROUND = 64 * WARPS  # numbers of a row that all warps together take at once
MOST_SPLITS = 16  # parts of a sequence that attention is computed in
DIRECT_BYTES = 48 << 10  # of parts of all sequences, that every block of the next phase may read and merge itself
ROUNDS = 2  # tiles that a warp takes one after the other, if that leaves so few parts


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """A llama, qwen2 or qwen3 model: RMSNorm, grouped-query attention with rotated halves, SwiGLU."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    epsilon: float  # of every RMSNorm
    dtype: str  # of weights, activations and caches, one of plan.DTYPES
    block_tokens: int  # tokens of a block of its caches
    qkv_bias: bool = False
    qk_norm: bool = False  # an RMSNorm of each head of queries and keys
    fp8_cache: bool = False  # caches hold eight-bit floats (E4M3) in place of `dtype`
    window: int = 0  # tokens that a query sees, in every layer; 0: all


class Gpu(NamedTuple):
    """What the cut of the work depends on."""

    multiprocessors: int
    shared_bytes: int  # that a block may have (cudaDevAttrMaxSharedMemoryPerBlockOptin)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Addresses in GPU memory of one layer, in the kernel's order; 0 for what the model does not have.

    Matrices are [rows, columns] as checkpoints store them. `query`, `key` and `value` may be parts of one matrix, and so may
    `gate` and `up`.
    """

    attention_norm: int
    query: int
    key: int
    value: int
    query_bias: int = 0
    key_bias: int = 0
    value_bias: int = 0
    query_norm: int = 0
    key_norm: int = 0
    out: int
    mlp_norm: int
    gate: int
    up: int
    down: int
    keys: int  # caches [blocks, block_tokens, kv_heads, head_dim]
    values: int


@dataclass(frozen=True, kw_only=True)
class DecoderWeights:
    """Addresses in GPU memory, each a multiple of 16."""

    layers: tuple[LayerWeights, ...]
    embedding: int  # [vocabulary, hidden]
    norm: int
    head: int  # [vocabulary, hidden]; may be `embedding`
    cosines: int  # [positions, head_dim / 2]
    sines: int

    @property
    def table(self) -> list[int]:
        """All addresses in the order in which the kernel reads them."""
        rows = [address for layer in self.layers for address in dataclasses.astuple(layer)]
        return [*rows, self.embedding, self.norm, self.head, self.cosines, self.sines]


def table_length(shape: DecoderShape) -> int:
    """How many addresses `DecoderWeights.table` has."""
    return len(dataclasses.fields(LayerWeights)) * shape.layers + len(dataclasses.fields(DecoderWeights)) - 1


class Cut(NamedTuple):
    """How a kernel's work is cut: constants of its source, and the memory that it needs."""

    constants: dict[str, int | float]
    scratch: dict[str, int]  # name -> bytes in GPU memory
    shared_bytes: int


def cut(shape: DecoderShape, batch: int, gpu: Gpu, phases: int = 0x1F, attention: bool = True) -> Cut | None:
    """How the step of `batch` sequences is cut for `gpu`; None if the kernel does not compute such a model there.

    Args:
        phases: of the kernel, as bits; less than all to measure one.
        attention: likewise.
    """
    group, remainder = divmod(shape.heads, shape.kv_heads)
    query, rows = shape.heads * shape.head_dim, (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    lengths = (shape.hidden, query, shape.intermediate)
    if batch not in BATCHES or remainder or group > 8 or shape.head_dim not in (64, 128) or any(n % 64 for n in lengths):
        return None
    table = 8 * table_length(shape)
    held = {1: 12, 2: 12, 4: 6, 8: 4}[batch]  # groups of rows whose sums wait for each other
    fixed = WARPS * held * batch * 16 * 4 + table + 4 * WARPS + 4 * 8 + 2 * shape.hidden
    merge = 2 * (8 * (shape.head_dim + 32) + 2 * shape.head_dim) + 4 * (2 * WARPS * 8 + WARPS * group * shape.head_dim + 4)
    stages, loaded, vector = 0, 0, 0
    for wanted in (WANTED_STAGES, FEWEST_STAGES):
        for parts in range(1, max(lengths) // ROUND + 2):  # of the longest vector, in shared memory one after the other
            loaded = max(ROUND * math.ceil(max(lengths) / parts / ROUND), shape.hidden)
            vector = max(merge, max(batch * 2 * (min(length, loaded) + 32) for length in lengths))
            vector += -vector % 128
            stages = min(MOST_STAGES, (gpu.shared_bytes - fixed - vector) // (WARPS * STAGE_BYTES))
            if stages >= wanted:
                break
        if stages >= wanted:
            break
    else:
        return None
    splits = max(1, min(MOST_SPLITS, gpu.multiprocessors // (batch * shape.kv_heads)))
    parts = splits * batch * shape.kv_heads
    direct = max(1, min(splits, DIRECT_BYTES // (4 * batch * query))) if attention else 1
    constants: dict[str, int | float] = {
        "BATCH": batch, "LAYERS": shape.layers, "HIDDEN": shape.hidden, "HEADS": shape.heads, "KV_HEADS": shape.kv_heads,
        "DIM": shape.head_dim, "INNER": shape.intermediate, "VOCABULARY": shape.vocabulary, "EPSILON": shape.epsilon,
        "ROOT_OF_DIM": math.sqrt(shape.head_dim), "HALF": int(shape.dtype == "float16"), "BLOCK_TOKENS": shape.block_tokens,
        "QKV_BIAS": int(shape.qkv_bias), "QK_NORM": int(shape.qk_norm), "BLOCKS": gpu.multiprocessors, "STAGES": stages,
        "LOADED": loaded, "VECTOR_BYTES": vector, "HELD": held, "SPLITS": splits, "DIRECT": direct, "ROUNDS": ROUNDS,
        "FP8": int(shape.fp8_cache), "WINDOW": shape.window, "AHEAD": 128, "PHASES": phases, "ATTENTION": int(attention),
    }  # fmt: skip
    scratch = {
        "hidden": batch * shape.hidden * 2, "qkv": batch * rows * 2, "attended": batch * query * 2,
        "gated": batch * shape.intermediate * 2, "split_sums": parts * group * shape.head_dim * 4,
        "split_weights": parts * group * 2 * 4, "counters": 4 * (2 + batch * shape.kv_heads),
    }  # fmt: skip
    return Cut(constants, scratch, WARPS * stages * STAGE_BYTES + vector + fixed)
