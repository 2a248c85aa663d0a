"""What each op of a CUDA engine computes, in NumPy: standard ones, and ONNX Runtime's own but attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_HALVES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_MIXED = frozenset({"PagedAttention", "MatMulNBits", "Cast"})  # ops that read floats of several types
_ONNX_TYPES = {1: "float", 10: "float16", 16: "bfloat16"}


class GraphError(AssertionError):
    """The graph holds what ONNX Runtime would refuse or no rule computes: our own fault."""


@dataclass
class Node:
    """A node of the graph; `kinds` are the types of what it reads in the run that goes on."""

    kind: str
    name: str
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    keeps: bool  # whether there is room for what it makes of its weights
    kinds: tuple[str, ...] = ()
    kept: dict[str, Array] = field(default_factory=dict)

    def float_kind(self) -> str:
        """The type of the floats that it gives.

        Raises:
            GraphError: it reads floats of two types and may not.
        """
        if self.kind == "Cast":
            return _ONNX_TYPES.get(self.attributes["to"], "")
        floats = [kind for kind in self.kinds if kind in ("float", *_HALVES)]
        if self.kind not in _MIXED and len(set(floats)) > 1:
            raise GraphError(f"{self.name} ({self.kind}) reads {' and '.join(sorted(set(floats)))}")
        return floats[0] if floats else ""

    def attribute(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def rounded(self, array: Array) -> Array:
        """To the type of what it reads first."""
        return rounded(array, self.kinds[0])


def rounded(array: Array, kind: str) -> Array:
    """The nearest numbers of that type, as float32."""
    return array.astype(_HALVES[kind]).astype(np.float32) if kind in _HALVES else array


Values = Sequence[Any]  # arrays, None for what is left out
Rule = Callable[[Node, Values], Sequence[Array | None]]
RULES: dict[str, Rule] = {}


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Enter a rule for ops of these kinds."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return enter


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.float32(1) / (np.float32(1) + np.exp(-x)))


def _pointwise(function: Callable[..., Array]) -> Rule:
    return lambda node, values: [np.asarray(function(*values))]


RULES |= {
    "Add": _pointwise(np.add),
    "Mul": _pointwise(np.multiply),
    "Div": _pointwise(np.divide),
    "Greater": _pointwise(np.greater),
    "Equal": _pointwise(np.equal),
    "Where": _pointwise(np.where),
    "Sigmoid": _pointwise(_sigmoid),
    "MatMul": _pointwise(np.matmul),
}


@rule("QuickGelu")
def _quick_gelu(node: Node, values: Values) -> Sequence[Array]:
    (x,) = values
    return [x * _sigmoid(np.float32(node.attribute("alpha", 1.702)) * x)]


@rule("SwiGLU")
def _swiglu(node: Node, values: Values) -> Sequence[Array]:
    gate, up = values if len(values) == 2 else np.split(values[0], 2, axis=-1)
    if gate.shape != up.shape:
        raise GraphError(f"{node.name} gates {up.shape} by {gate.shape}")
    return [gate * _sigmoid(gate) * up]


@rule("Gather")
def _gather(node: Node, values: Values) -> Sequence[Array]:
    data, indices = values
    return [np.take(data, indices, axis=node.attribute("axis", 0))]


@rule("Cast")
def _cast(node: Node, values: Values) -> Sequence[Array]:
    (x,) = values
    to = node.attributes["to"]
    return [x.astype(np.bool_ if to == 9 else np.int64 if to == 7 else np.float32)]


@rule("Split")
def _split(node: Node, values: Values) -> Sequence[Array]:
    x, axis = values[0], node.attribute("axis", 0)
    if len(values) > 1 and values[1] is not None:
        if values[1].sum() != x.shape[axis]:
            raise GraphError(f"{node.name} splits {x.shape[axis]} into {values[1].tolist()}")
        return np.split(x, np.cumsum(values[1])[:-1], axis=axis)
    return np.split(x, node.attribute("num_outputs", len(node.outputs)), axis=axis)


@rule("Concat")
def _concat(node: Node, values: Values) -> Sequence[Array]:
    return [np.concatenate(list(values), axis=node.attributes["axis"])]


@rule("Reshape")
def _reshape(node: Node, values: Values) -> Sequence[Array]:
    x, sizes = values
    return [x.reshape([x.shape[i] if size == 0 else int(size) for i, size in enumerate(sizes)])]


@rule("Transpose")
def _transpose(node: Node, values: Values) -> Sequence[Array]:
    return [values[0].transpose(node.attributes["perm"])]


@rule("Unsqueeze")
def _unsqueeze(node: Node, values: Values) -> Sequence[Array]:
    return [np.expand_dims(values[0], tuple(int(axis) for axis in values[1]))]


@rule("ReduceSum")
def _reduce_sum(node: Node, values: Values) -> Sequence[Array]:
    axes = tuple(int(axis) for axis in values[1])
    return [values[0].sum(axis=axes, keepdims=bool(node.attribute("keepdims", 1)))]


@rule("Softmax")
def _softmax(node: Node, values: Values) -> Sequence[Array]:
    return [softmax(values[0], node.attribute("axis", -1))]


def softmax(x: Array, axis: int = -1) -> Array:
    """Shares along an axis; minus infinity has none."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis, keepdims=True))


@rule("TopK")
def _top_k(node: Node, values: Values) -> Sequence[Array]:
    x, count = values[0], int(values[1][0])
    if node.attribute("axis", -1) not in (-1, x.ndim - 1):
        raise GraphError(f"{node.name} looks along another axis than the last")
    order = np.argsort(-x, axis=-1, kind="stable")[..., :count]
    return [np.take_along_axis(x, order, -1), order.astype(np.int64)]


@rule("FusedMatMul")
def _fused_matmul(node: Node, values: Values) -> Sequence[Array]:
    a, b = values
    a = a.swapaxes(-1, -2) if node.attribute("transA", 0) else a
    b = b.swapaxes(-1, -2) if node.attribute("transB", 0) else b
    if a.shape[-1] != b.shape[-2]:
        raise GraphError(f"{node.name} multiplies {a.shape} by {b.shape}")
    return [np.matmul(a, b) * np.float32(node.attribute("alpha", 1.0))]


@rule("MatMulNBits")
def _matmul_nbits(node: Node, values: Values) -> Sequence[Array]:
    x, packed, scales, *more = values
    if any(value is not None for value in more):
        raise GraphError(f"{node.name} has zero points, a bias or an order of columns: no rule for these")
    rows, columns, bits, block = (node.attributes[name] for name in ("N", "K", "bits", "block_size"))
    if packed.shape != (rows, columns // block, block * bits // 8) or scales.shape != (rows, columns // block):
        raise GraphError(f"{node.name} reads codes {packed.shape} and scales {scales.shape}; it says {rows} x {columns}")
    if "floats" in node.kept:
        return [x @ node.kept["floats"].T]
    codes = packed if bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(rows, columns // block, block)
    floats = (codes.astype(np.float32) - np.float32(1 << (bits - 1))) * scales[..., None]
    floats = floats.reshape(rows, columns)
    if node.keeps:
        node.kept["floats"] = floats
    return [x @ floats.T]


@rule("SimplifiedLayerNormalization")
def _norm(node: Node, values: Values) -> Sequence[Array]:
    x, scale = values
    if node.attribute("axis", -1) != -1:
        raise GraphError(f"{node.name} normalizes along another axis than the last")
    return [normalized(x, scale, node.attribute("epsilon", 1e-5))]


@rule("SkipSimplifiedLayerNormalization")
def _skip_norm(node: Node, values: Values) -> Sequence[Array | None]:
    x, skip, scale = values
    if x.shape != skip.shape:
        raise GraphError(f"{node.name} adds {x.shape} and {skip.shape}")
    total = node.rounded(x + skip)
    return [normalized(total, scale, node.attribute("epsilon", 1e-12)), None, None, total]


@rule("GatedRMSNorm")
def _gated_norm(node: Node, values: Values) -> Sequence[Array]:
    x, scale, gate = values
    size = len(scale)
    if node.attribute("activation", "") != "silu" or x.shape[-1] % size:
        raise GraphError(f"{node.name} normalizes rows of {x.shape[-1]} by {size}, gated by {node.attribute('activation', '')}")
    groups = x.reshape(*x.shape[:-1], -1, size)
    rows = normalized(groups, scale, node.attribute("epsilon", 1e-6)).reshape(x.shape)
    return [rows * (gate * _sigmoid(gate))]


def normalized(x: Array, scale: Array, epsilon: float) -> Array:
    """Root mean square normalization over the last axis."""
    mean = np.mean(np.square(x), axis=-1, keepdims=True, dtype=np.float32)
    return np.asarray(x / np.sqrt(mean + np.float32(epsilon)) * scale)
