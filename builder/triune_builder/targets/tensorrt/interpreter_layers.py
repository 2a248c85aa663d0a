"""What each kind of TensorRT layer computes, in NumPy, from NVIDIA's description of the operators. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Values = dict[str, Array]

_CLASSES = {
    "CONSTANT": "IConstantLayer", "CAST": "ICastLayer", "GATHER": "IGatherLayer", "ELEMENTWISE": "IElementWiseLayer",
    "REDUCE": "IReduceLayer", "SHUFFLE": "IShuffleLayer", "UNARY": "IUnaryLayer", "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
    "ROTARY_EMBEDDING": "IRotaryEmbeddingLayer", "KV_CACHE_UPDATE": "IKVCacheUpdateLayer", "ACTIVATION": "IActivationLayer",
    "ATTENTION_INPUT": "IAttentionInputLayer", "SOFTMAX": "ISoftMaxLayer", "CONCATENATION": "IConcatenationLayer",
    "SLICE": "ISliceLayer", "TOPK": "ITopKLayer", "DEQUANTIZE": "IDequantizeLayer", "SELECT": "ISelectLayer",
    "SCATTER": "IScatterLayer",
}  # fmt: skip


class Layer:
    """One layer: its kind, its tensors by name, and TensorRT's own object with the methods of its kind."""

    def __init__(self, trt: Any, raw: Any) -> None:
        self.trt, self.raw = trt, raw
        self.kind: str = raw.type.name
        self.name: str = raw.name
        if self.kind in _CLASSES:
            raw.__class__ = getattr(trt, _CLASSES[self.kind])
        tensors = [raw.get_input(i) for i in range(raw.num_inputs)]
        self.inputs: list[str | None] = [None if t is None else t.name for t in tensors]
        self.output_tensors = [raw.get_output(i) for i in range(raw.num_outputs)]
        self.outputs: list[str] = [t.name for t in self.output_tensors]
        further: list[Any] = []
        if self.kind == "ATTENTION_INPUT":
            further = [raw.attention.mask, raw.attention.key_value_lengths]
        self.reads = [n for n in self.inputs if n is not None] + [t.name for t in further if t is not None]

    def array(self, values: Values, index: int) -> Array | None:
        name = self.inputs[index] if index < len(self.inputs) else None
        return None if name is None else values[name]

    def arrays(self, values: Values) -> list[Array]:
        """All inputs that are there."""
        return [values[name] for name in self.inputs if name is not None]


def _first(layer: Layer, values: Values) -> Sequence[Array]:
    return [layer.arrays(values)[0]]


def _gather(layer: Layer, values: Values) -> Sequence[Array]:
    data, indices = layer.arrays(values)
    assert layer.raw.mode == layer.trt.GatherMode.DEFAULT and layer.raw.num_elementwise_dims == 0, layer.name
    assert indices.size == 0 or (indices.min() >= 0 and indices.max() < data.shape[layer.raw.axis]), (
        f"{layer.name}: an index is outside"
    )
    return [np.take(data, indices, axis=layer.raw.axis)]


def _unsqueeze(layer: Layer, values: Values) -> Sequence[Array]:
    x, axes = layer.arrays(values)
    return [np.expand_dims(x, tuple(int(a) for a in np.atleast_1d(axes)))]


def _squeeze(layer: Layer, values: Values) -> Sequence[Array]:
    x, axes = layer.arrays(values)
    return [np.squeeze(x, tuple(int(a) for a in np.atleast_1d(axes)))]


_PAIRS: dict[str, Callable[..., Array]] = {
    "SUM": np.add, "PROD": np.multiply, "SUB": np.subtract, "DIV": np.divide, "MAX": np.maximum, "MIN": np.minimum,
    "POW": np.power, "FLOOR_DIV": np.floor_divide, "EQUAL": np.equal, "LESS": np.less, "GREATER": np.greater,
    "AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor,
}  # fmt: skip
_SINGLES: dict[str, Callable[..., Array]] = {
    "SQRT": np.sqrt, "RECIP": np.reciprocal, "EXP": np.exp, "LOG": np.log, "NEG": np.negative, "ABS": np.abs,
    "NOT": np.logical_not, "ISNAN": np.isnan,
}  # fmt: skip
_SUMS: dict[str, Callable[..., Array]] = {"SUM": np.sum, "AVG": np.mean, "MAX": np.max, "MIN": np.min, "PROD": np.prod}


def _elementwise(layer: Layer, values: Values) -> Sequence[Array]:
    a, b = layer.arrays(values)
    if layer.raw.op.name == "DIV" and a.dtype.kind == "i":
        return [np.trunc(a / b).astype(a.dtype)]
    return [_PAIRS[layer.raw.op.name](a, b)]


def _unary(layer: Layer, values: Values) -> Sequence[Array]:
    return [_SINGLES[layer.raw.op.name](layer.arrays(values)[0])]


def _reduce(layer: Layer, values: Values) -> Sequence[Array]:
    x = layer.arrays(values)[0]
    axes = tuple(i for i in range(x.ndim) if layer.raw.axes >> i & 1)
    return [_SUMS[layer.raw.op.name](x, axis=axes, keepdims=layer.raw.keep_dims)]


def _shuffle(layer: Layer, values: Values) -> Sequence[Array]:
    """A transposition, a new shape, a transposition; each may be missing."""
    x = layer.arrays(values)[0]
    y = x.transpose(tuple(layer.raw.first_transpose)[: x.ndim])
    given = layer.array(values, 1)
    shape = None if given is None else [int(n) for n in given]
    if given is None:
        try:
            shape = None if layer.raw.reshape_dims is None else list(layer.raw.reshape_dims)
        except ValueError:  # none was set
            shape = None
    if shape is not None and (shape or y.size == 1):
        if layer.raw.zero_is_placeholder:
            shape = [y.shape[i] if n == 0 else n for i, n in enumerate(shape)]
        y = y.reshape(shape)
    return [y.transpose(tuple(layer.raw.second_transpose)[: y.ndim])]


def _product(layer: Layer, values: Values) -> Sequence[Array]:
    sides = []
    for array, op in zip(layer.arrays(values), (layer.raw.op0, layer.raw.op1), strict=True):
        assert op != layer.trt.MatrixOperation.VECTOR, layer.name
        array = array.astype(np.float32, copy=False)  # the cache is read as it lies
        sides.append(array.swapaxes(-1, -2) if op == layer.trt.MatrixOperation.TRANSPOSE else array)
    return [np.matmul(*sides)]


def _activation(layer: Layer, values: Values) -> Sequence[Array]:
    x = layer.arrays(values)[0]
    kind = layer.trt.IActivationLayer.type.fget(layer.raw).name
    if kind == "SIGMOID":
        return [1 / (1 + np.exp(-x))]
    assert kind == "RELU", f"{layer.name}: no rule for the activation {kind}"
    return [np.maximum(x, 0)]


def _softmax(layer: Layer, values: Values) -> Sequence[Array]:
    return [_shares(layer.arrays(values)[0], int(np.log2(layer.raw.axes)))]


def _shares(x: Array, axis: int) -> Array:
    shares: Array = np.exp(x - x.max(axis, keepdims=True))
    shares /= shares.sum(axis, keepdims=True)
    return shares


def _select(layer: Layer, values: Values) -> Sequence[Array]:
    condition, yes, no = layer.arrays(values)
    return [np.where(condition, yes, no)]


def _shape(layer: Layer, values: Values) -> Sequence[Array]:
    return [np.array(layer.arrays(values)[0].shape, np.int64)]


def _concatenation(layer: Layer, values: Values) -> Sequence[Array]:
    return [np.concatenate(layer.arrays(values), layer.raw.axis)]


def _slice(layer: Layer, values: Values) -> Sequence[Array]:
    """start, size and stride of every axis, or of those named; each an attribute or a further input."""
    x = layer.arrays(values)[0]
    start, size, stride = (
        [int(n) for n in (attribute if given is None else given)]
        for given, attribute in (
            (layer.array(values, i), attribute)
            for i, attribute in ((1, layer.raw.start), (2, layer.raw.shape), (3, layer.raw.stride))
        )
    )
    assert layer.raw.mode == layer.trt.SampleMode.STRICT_BOUNDS and layer.array(values, 5) is None, layer.name
    cut = [slice(None)] * x.ndim
    axes = range(x.ndim) if layer.raw.axes is None else tuple(layer.raw.axes)
    for axis, a, n, s in zip(axes, start, size, stride, strict=True):
        assert a >= 0 and a + (n - 1) * s < x.shape[axis], f"{layer.name}: outside of axis {axis}"
        cut[axis] = slice(a, a + n * s, s)
    return [x[tuple(cut)]]


def _topk(layer: Layer, values: Values) -> Sequence[Array]:
    """The k largest or smallest, best first; of equals the first."""
    x, given = layer.arrays(values)[0], layer.array(values, 1)
    k, axis = layer.raw.k if given is None else int(given), int(np.log2(layer.raw.axes))
    order = np.argsort(-x if layer.raw.op == layer.trt.TopKOperation.MAX else x, axis=axis, kind="stable")
    best = np.take(order, range(k), axis)
    return [np.take_along_axis(x, best, axis), best]


def _dequantize(layer: Layer, values: Values) -> Sequence[Array]:
    """codes times a scale: one, one a row of `axis`, or one a block (as many axes as the codes)."""
    codes, scale = layer.arrays(values)[:2]
    assert layer.array(values, 2) is None, f"{layer.name} has a zero point"
    if scale.size > 1 and scale.ndim == 1:
        scale = scale.reshape([-1 if i == layer.raw.axis % codes.ndim else 1 for i in range(codes.ndim)])
    elif scale.size > 1:
        for axis in range(codes.ndim):
            if scale.shape[axis] not in (1, codes.shape[axis]):
                scale = np.repeat(scale, codes.shape[axis] // scale.shape[axis], axis)
    return [codes.astype(np.float32) * scale]


def _scatter(layer: Layer, values: Values) -> Sequence[Array]:
    """The data with each update in the row that its index says; the last axis of the indices has one number."""
    data, indices, updates = layer.arrays(values)
    assert layer.raw.mode == layer.trt.ScatterMode.ND and indices.shape[-1] == 1, layer.name
    rows = indices[..., 0]
    assert rows.min() >= 0 and rows.max() < len(data), f"{layer.name}: a row is outside"
    written = data.copy()
    written[rows] = updates
    return [written]


def _rotary(layer: Layer, values: Values) -> Sequence[Array]:
    """x [batch, heads, n, dim]; cos, sin [positions, dim/2] looked up by position, or [batch, n, dim/2]."""
    x, cos, sin, *positions = layer.arrays(values)
    if positions:
        assert positions[0].max() < len(cos), f"{layer.name}: a position is outside the tables"
        cos, sin = cos[positions[0]], sin[positions[0]]
    cos, sin = cos[:, None], sin[:, None]
    size = layer.raw.rotary_embedding_dim or x.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    if layer.raw.interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        y = np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(turned.shape)
    else:
        a, b = np.split(turned, 2, -1)
        y = np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    return [np.concatenate([y, rest], -1)]


def _cache_update(layer: Layer, values: Values) -> Sequence[Array]:
    """The cache itself, with each sequence's update written from its index on."""
    assert layer.raw.update_form == layer.trt.AttentionIOForm.PADDED_BHND, layer.name
    cache, update, starts = layer.arrays(values)
    n = update.shape[2]
    for row, start in enumerate(int(s) for s in starts):
        assert start >= 0 and start + n <= cache.shape[2], f"{layer.name} writes {start} to {start + n} of {cache.shape[2]}"
        cache[row, :, start : start + n] = update[row].astype(cache.dtype)
    return [cache]


def _attention(layer: Layer, values: Values) -> Sequence[Array]:
    """softmax(q k^T) v in float32; q [batch, heads, n, dim], k and v [batch, kv_heads, length, dim]. It scales nothing."""
    trt, a = layer.trt, layer.raw.attention
    assert (
        a.query_form == a.key_value_form == trt.AttentionIOForm.PADDED_BHND
        and a.norm_op == trt.AttentionNormalizationOp.SOFTMAX
    )
    q, k, v = layer.arrays(values)[:3]
    batch, heads, n, dim = q.shape
    length = k.shape[2]
    seen = np.ones((1, 1, n, length), np.bool_)
    rows, columns = np.arange(n)[:, None], np.arange(length)
    lengths = None if a.key_value_lengths is None else values[a.key_value_lengths.name].reshape(-1, 1, 1, 1)
    if lengths is not None:
        seen = seen & (columns < lengths)
    if a.causal_kind == trt.CausalMaskKind.UPPER_LEFT:
        seen = seen & (columns <= rows)
    elif a.causal_kind == trt.CausalMaskKind.LOWER_RIGHT:
        seen = seen & (columns <= rows + (length if lengths is None else lengths) - n)
    bias: Array | None = None
    if a.mask is not None:
        mask = values[a.mask.name]
        seen, bias = (seen & mask, None) if mask.dtype == np.bool_ else (seen, mask)
    used = int(np.flatnonzero(seen.any(axis=(0, 1, 2)))[-1]) + 1  # what nobody sees counts nothing
    k, v = (x[:, :, :used].astype(np.float32) for x in (k, v))
    kv_heads = k.shape[1]
    rows_of = q.reshape(batch, kv_heads, heads // kv_heads * n, dim)  # queries that share a key head, side by side
    scores = np.matmul(rows_of, k.swapaxes(-1, -2)).reshape(batch, heads, n, used)
    if bias is not None:
        scores = scores + bias[..., :used]
    shares = _shares(np.where(seen[..., :used], scores, -np.inf), -1).reshape(batch, kv_heads, -1, used)
    return [np.matmul(shares, v).reshape(batch, heads, n, dim)]


MOVES = frozenset({"SHUFFLE", "UNSQUEEZE", "SQUEEZE", "IDENTITY", "ATTENTION_OUTPUT", "SLICE"})  # these compute nothing
RULES: dict[str, Callable[[Layer, Values], Sequence[Array]]] = {
    "CAST": _first, "IDENTITY": _first, "ATTENTION_OUTPUT": _first, "GATHER": _gather, "UNSQUEEZE": _unsqueeze,
    "SQUEEZE": _squeeze, "ELEMENTWISE": _elementwise, "UNARY": _unary, "REDUCE": _reduce, "SHUFFLE": _shuffle,
    "MATRIX_MULTIPLY": _product, "ACTIVATION": _activation, "SOFTMAX": _softmax, "SELECT": _select, "SHAPE": _shape,
    "CONCATENATION": _concatenation, "SLICE": _slice, "TOPK": _topk, "DEQUANTIZE": _dequantize, "ROTARY_EMBEDDING": _rotary,
    "KV_CACHE_UPDATE": _cache_update, "ATTENTION_INPUT": _attention, "SCATTER": _scatter,
}  # fmt: skip
