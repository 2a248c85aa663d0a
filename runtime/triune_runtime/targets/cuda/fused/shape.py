"""Sizes and weights of a dense decoder, as the fused kernel takes them, and how its work is cut for a GPU. Integers only."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

BATCHES = (1, 2, 4, 8)  # sequences that a kernel is made for
WARPS = 8  # of a block; 32 threads each
STRETCH_BYTES = 128  # of each of 16 rows, that a warp copies at once
SCALED = 32  # numbers of a row that share a scale, where weights are quantized
FEWEST_STAGES = 3  # in flight, of a warp
WANTED_STAGES = {16: 8, 4: 5}  # to keep the memory busy while blocks wait for each other, by bits of a weight
MOST_STAGES = 14
MOST_SPLITS = 16  # parts of a sequence that attention is computed in
DIRECT_BYTES = 48 << 10  # of parts of all sequences, that every block of the next phase may read and merge itself
ROUNDS = 2  # tiles that a warp takes one after the other, if that leaves so few parts
_SCALES = 7  # of a layer's matrices, which quantized ones have


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
    weight_bits: int = 16  # of the layers' matrices: `dtype`, or 4, codes around the middle one with a scale for each 32
    head_bits: int = 16  # of the head: `dtype`, or 8 where the matrices have 4


class Gpu(NamedTuple):
    """What the cut of the work depends on."""

    multiprocessors: int
    shared_bytes: int  # that a block may have (cudaDevAttrMaxSharedMemoryPerBlockOptin)


@dataclass(frozen=True, kw_only=True)
class LayerWeights:
    """Addresses in GPU memory of one layer, in the kernel's order; 0 for what the model does not have.

    Matrices are [rows, columns] as checkpoints store them, or packed [rows, columns * bits / 8] with a float16 scale for each
    32 columns. `query`, `key` and `value` may be parts of one matrix, and so may `gate` and `up`.
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
    query_scale: int = 0  # from here on of quantized matrices alone
    key_scale: int = 0
    value_scale: int = 0
    out_scale: int = 0
    gate_scale: int = 0
    up_scale: int = 0
    down_scale: int = 0


@dataclass(frozen=True, kw_only=True)
class DecoderWeights:
    """Addresses in GPU memory, each a multiple of 16."""

    layers: tuple[LayerWeights, ...]
    embedding: int  # [vocabulary, hidden]
    norm: int
    head: int  # [vocabulary, hidden]; may be `embedding`
    cosines: int  # [positions, head_dim / 2]
    sines: int
    head_scale: int = 0

    @property
    def table(self) -> list[int]:
        """All addresses in the order in which the kernel reads them."""
        end = None if self.head_scale else -_SCALES  # there are none, or of all matrices
        rows = [address for layer in self.layers for address in dataclasses.astuple(layer)[:end]]
        whole = [self.embedding, self.norm, self.head, self.cosines, self.sines, self.head_scale]
        return rows + whole[: None if self.head_scale else -1]


def table_length(shape: DecoderShape) -> int:
    """How many addresses `DecoderWeights.table` has."""
    of_layer, whole = len(dataclasses.fields(LayerWeights)), len(dataclasses.fields(DecoderWeights)) - 1
    if shape.weight_bits == 16:
        of_layer, whole = of_layer - _SCALES, whole - 1
    return of_layer * shape.layers + whole


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
    forms = [(16, 16)] + [(4, 8)] * (shape.dtype == "float16")
    is_known = batch in BATCHES and shape.head_dim in (64, 128) and (shape.weight_bits, shape.head_bits) in forms
    if not is_known or remainder or group > 8 or any(n % 64 for n in lengths):
        return None
    numbers = WARPS * STRETCH_BYTES * 8 // shape.weight_bits  # of a row that all warps together take at once
    stage_bytes = 16 * STRETCH_BYTES + (256 if shape.weight_bits < 16 else 0)
    table = 8 * table_length(shape)
    held = {1: 12, 2: 12, 4: 6, 8: 4}[batch]  # groups of rows whose sums wait for each other
    fixed = WARPS * held * batch * 16 * 4 + table + 4 * WARPS + 4 * 8 + 2 * shape.hidden
    merge = 2 * (8 * (shape.head_dim + 32) + 2 * shape.head_dim) + 4 * (2 * WARPS * 8 + WARPS * group * shape.head_dim + 4)
    stages, loaded, vector = 0, 0, 0
    for wanted in (WANTED_STAGES[shape.weight_bits], FEWEST_STAGES):
        for parts in range(1, max(lengths) // numbers + 2):  # of the longest vector, in shared memory one after the other
            loaded = numbers * math.ceil(max(max(lengths) / parts, shape.hidden) / numbers)
            vector = max(merge, max(batch * 2 * (min(length, loaded) + 32) for length in lengths))
            vector += -vector % 128
            stages = min(MOST_STAGES, (gpu.shared_bytes - fixed - vector) // (WARPS * stage_bytes))
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
        "WEIGHT_BITS": shape.weight_bits, "HEAD_BITS": shape.head_bits,
    }  # fmt: skip
    scratch = {
        "hidden": batch * shape.hidden * 2, "qkv": batch * rows * 2, "attended": batch * query * 2,
        "gated": batch * shape.intermediate * 2, "split_sums": parts * group * shape.head_dim * 4,
        "split_weights": parts * group * 2 * 4, "counters": 4 * (2 + batch * shape.kv_heads),
    }  # fmt: skip
    return Cut(constants, scratch, WARPS * stages * stage_bytes + vector + fixed)
