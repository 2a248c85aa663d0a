"""PagedAttention in NumPy: what its schema says, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .interpreter_ops import Array, GraphError, Node, Values, normalized, softmax

_LARGEST = 448.0  # of an eight-bit float


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    heads: int
    kv_heads: int
    head: int
    value: int  # numbers of a head's values
    is_latent: bool


def paged_attention(node: Node, values: Values) -> Sequence[Array]:
    """A rule, see `interpreter_ops`."""
    inputs: list[Any] = [*values, *[None] * (17 - len(values))]
    query, key, value, key_cache, value_cache, ends, past, table, cos, sin = inputs[:10]
    slots, sink, query_norm, key_norm, key_scale, value_scale, metadata = inputs[10:]
    if slots is not None or sink is not None or node.attribute("softcap", 0.0) or node.attribute("is_causal", 1) != 1:
        raise GraphError(f"{node.name} says what no rule computes")
    sizes = _sizes(node, query, key, value, key_cache, value_cache)
    query, key, value = _parts(sizes, query, key, value)
    _check_lengths(node, ends, past, table, key_cache.shape, metadata, len(query))
    sequence = np.repeat(np.arange(len(past)), np.diff(ends))
    positions = past[sequence] + np.arange(len(query)) - ends[sequence]
    if (query_norm is None) != (key_norm is None):
        raise GraphError(f"{node.name} normalizes only one of queries and keys")
    if query_norm is not None:
        epsilon = node.attribute("qk_norm_epsilon", 1e-6)
        query = node.rounded(normalized(query, query_norm, epsilon))
        key = node.rounded(normalized(key, key_norm, epsilon))
    if node.attribute("do_rotary", 0):
        query, key = (node.rounded(_rotated(node, x, positions, cos, sin)) for x in (query, key))
    block = key_cache.shape[1]
    places = table[sequence, positions // block], positions % block
    _write(node, key_cache, places, key, key_scale, "k")
    if value is not None:
        _write(node, value_cache, places, value, value_scale, "v")
    window = node.attribute("local_window_size", -1)
    scale = np.float32(node.attribute("scale", 0.0) or 1 / np.sqrt(sizes.head))
    y = np.empty((len(query), sizes.heads, sizes.value), np.float32)
    for number in range(len(past)):
        rows = slice(ends[number], ends[number + 1])
        total = int(past[number]) + rows.stop - rows.start
        blocks = table[number, : -(-total // block)]
        keys = _read(key_cache, blocks, total, key_scale)
        held = keys[..., : sizes.value] if sizes.is_latent else _read(value_cache, blocks, total, value_scale)
        y[rows] = _attend(query[rows], keys, held, positions[rows], scale, window)
    return [y.reshape(len(query), -1)]


def rotary_qkv(node: Node, values: Values) -> Sequence[Array]:
    """A rule, see `interpreter_ops`: what an attention to packed rows does first, rounded once."""
    inputs: list[Any] = [*values, *[None] * (8 - len(values))]
    packed, cos, sin, ends, past, bias, query_norm, key_norm = inputs
    heads, kv_heads = node.attributes["num_heads"], node.attributes["kv_num_heads"]
    size = packed.shape[1] // (heads + 2 * kv_heads)
    if cos.shape[1] * 2 != size or size % 16 or packed.shape[1] % size or ends[-1] != len(packed):
        raise GraphError(f"{node.name} has {heads} and {kv_heads} heads of {size} numbers in {packed.shape}")
    if bias is not None and bias.shape != packed.shape[1:]:
        raise GraphError(f"{node.name} adds {bias.shape} to {packed.shape}")
    rows = packed if bias is None else packed + bias
    parts = np.split(rows, [heads * size, (heads + kv_heads) * size], axis=1)
    query, key, value = (part.reshape(len(rows), -1, size) for part in parts)
    if (query_norm is None) != (key_norm is None):
        raise GraphError(f"{node.name} normalizes only one of queries and keys")
    if query_norm is not None:
        if (size // 16) & (size // 16 - 1) or query_norm.shape != (size,) or key_norm.shape != (size,):
            raise GraphError(f"{node.name} normalizes heads of {size} by {query_norm.shape} and {key_norm.shape}")
        epsilon = node.attributes["epsilon"]
        query, key = normalized(query, query_norm, epsilon), normalized(key, key_norm, epsilon)
    sequence = np.repeat(np.arange(len(past)), np.diff(ends))
    positions = past[sequence] + np.arange(len(rows)) - ends[sequence]
    query, key = (_rotated(node, x, positions, cos, sin) for x in (query, key))
    return [x.reshape(len(rows), -1) for x in (query, key, value)]


def _sizes(node: Node, query: Array, key: Any, value: Any, key_cache: Array, value_cache: Any) -> _Sizes:
    heads, kv_heads = node.attributes["num_heads"], node.attributes["kv_num_heads"]
    is_latent = node.attribute("kv_cache_layout", "SEPARATE") == "LATENT"
    width = heads if key is not None else heads + 2 * kv_heads
    head = query.shape[1] // width
    value_size = node.attribute("v_head_size", 0) or head
    fits = query.ndim == 2 and query.shape[1] == width * head and head % 8 == 0 and heads % kv_heads == 0
    fits = fits and key_cache.shape[2:] == (kv_heads, head)
    if is_latent:
        fits = fits and value is None and value_cache is None and key is not None and kv_heads == 1 and value_size <= head
        fits = fits and "scale" in node.attributes
    else:
        fits = fits and (key is None) == (value is None) and value_size == head
        fits = fits and value_cache is not None and value_cache.shape == key_cache.shape
    block = key_cache.shape[1]
    if not fits or block < 16 or block & (block - 1):
        raise GraphError(f"{node.name} has {heads} and {kv_heads} heads for {query.shape} and a cache {key_cache.shape}")
    return _Sizes(heads=heads, kv_heads=kv_heads, head=head, value=value_size, is_latent=is_latent)


def _parts(sizes: _Sizes, query: Array, key: Any, value: Any) -> tuple[Array, Array, Any]:
    """Queries [tokens, heads, size], keys and values [tokens, kv_heads, size]; None for values that are keys."""
    if key is None:
        ends = np.cumsum([sizes.heads, sizes.kv_heads]) * sizes.head
        query, key, value = np.split(query, ends, axis=1)
    tokens = len(query)
    query, key = (x.reshape(tokens, -1, sizes.head) for x in (query, key))
    return query, key, None if value is None else value.reshape(tokens, -1, sizes.head)


def _check_lengths(
    node: Node, ends: Array, past: Array, table: Array, cache: tuple[int, ...], metadata: Any, tokens: int
) -> None:
    """What says where tokens lie must be so for every sequence; bounds may be wide, and must hold."""
    new = np.diff(ends)
    totals = past + new
    if ends[0] != 0 or ends[-1] != tokens or (new < 0).any() or (past < 0).any() or len(table) != len(past):
        raise GraphError(f"{node.name} is told lengths {ends.tolist()} and {past.tolist()} for {tokens} tokens")
    if (totals > table.shape[1] * cache[1]).any():
        raise GraphError(f"{node.name}: {int(totals.max())} tokens of a sequence do not fit in {table.shape[1]} blocks")
    for row, total in zip(table, totals, strict=True):
        used = row[: -(-int(total) // cache[1])]
        if ((used < 0) | (used >= cache[0])).any():
            raise GraphError(f"{node.name} is told blocks {used.tolist()} of {cache[0]}")
    if metadata is not None:
        most_new, longest, least = (int(bound) for bound in metadata)
        if not (most_new >= new.max() and longest >= totals.max() and least <= totals.max()):
            raise GraphError(f"{node.name} is told bounds {metadata.tolist()} for {new.tolist()} of {totals.tolist()} tokens")


def _rotated(node: Node, x: Array, positions: Array, cos: Array, sin: Array) -> Array:
    """Pairs of numbers of each head turned by their position's angles; the rest as it is."""
    half, begin, head = cos.shape[1], node.attribute("rotary_offset", 0), x.shape[-1]
    if half % 8 or head % 16 or begin % 8 or begin + 2 * half > head or cos.shape != sin.shape:
        raise GraphError(f"{node.name} rotates {2 * half} numbers of {head} from {begin} on")
    if positions.max() >= len(cos):
        raise GraphError(f"{node.name} rotates position {int(positions.max())} by a table of {len(cos)}")
    c, s = cos[positions][:, None], sin[positions][:, None]
    part = x[..., begin : begin + 2 * half]
    y = x.copy()
    turned = y[..., begin : begin + 2 * half]
    if node.attribute("rotary_interleaved", 0):
        a, b = part[..., ::2], part[..., 1::2]
        turned[..., ::2], turned[..., 1::2] = a * c - b * s, b * c + a * s
    else:
        a, b = part[..., :half], part[..., half:]
        turned[..., :half], turned[..., half:] = a * c - b * s, b * c + a * s
    return y


def _write(node: Node, cache: Array, places: tuple[Array, Array], rows: Array, scale: Any, part: str) -> None:
    """Each token's numbers to its place; eight-bit floats are of numbers divided by the scale, and none is infinite."""
    is_coded = cache.dtype.name == "float8_e4m3fn"
    said = node.attribute(f"{part}_quant_type", "NONE")
    if (said == "PER_TENSOR") != is_coded or (scale is not None) != is_coded or (is_coded and scale.size != 1):
        raise GraphError(f"{node.name} has a cache of {cache.dtype} and says {said}")
    if is_coded:
        rows = np.clip(rows / scale.reshape(()), -_LARGEST, _LARGEST)
    cache[places] = rows.astype(cache.dtype)


def _read(cache: Array, blocks: Array, total: int, scale: Any) -> Array:
    """[total, heads, size] of one sequence."""
    rows = cache[blocks].reshape(-1, *cache.shape[2:])[:total].astype(np.float32)
    return rows if scale is None else rows * scale.reshape(())


def _attend(query: Array, keys: Array, values: Array, positions: Array, scale: np.float32, window: int) -> Array:
    """[tokens, heads, size]: what each query sees is all up to its own position, of a window only its latest positions."""
    tokens, heads, size = query.shape
    kv_heads = keys.shape[1]
    shared = query.reshape(tokens, kv_heads, heads // kv_heads, size).transpose(1, 2, 0, 3)
    scores = np.matmul(shared, keys.transpose(1, 2, 0)[:, None]) * scale  # [kv_heads, shared, tokens, total]
    numbers = np.arange(len(keys))
    seen = numbers <= positions[:, None]
    if window > 0:
        seen &= numbers > positions[:, None] - window
    shares = softmax(np.where(seen, scores, np.float32(-np.inf)))
    mixed = np.matmul(shares, values.transpose(1, 0, 2)[:, None])
    return np.asarray(mixed.transpose(2, 0, 1, 3).reshape(tokens, heads, -1))
