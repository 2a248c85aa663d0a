"""Which initializers of a lowered graph are the weights of a dense decoder, for the kernel that computes its decodes at once.

It is read off the graph, node by node from the logits back: whatever is not just as the kernel computes it is no such decoder.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import onnx_ir as ir

from triune_runtime.targets.cuda.fused.names import DecoderNames, Rows
from triune_runtime.targets.cuda.fused.shape import DecoderShape

from ...graph.export import GraphBundle
from ..halves import HALVES

_PAST = "past."


class _OtherGraph(Exception):
    """Something is not as the kernel computes it."""


class _Attention(NamedTuple):
    """A layer's attention: what its neighbours must agree with."""

    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float | None  # of the norms of queries and keys
    tables: tuple[str, str]  # cosines and sines
    caches: tuple[str, str]


class _Layer(NamedTuple):
    weights: dict[str, Rows]
    attention: _Attention
    intermediate: int
    epsilons: frozenset[float]


def find_decoder(bundle: GraphBundle, *, dtype: str, block_tokens: int) -> DecoderNames | None:
    """The decoder that the graph of `bundle`, lowered, is; None: another kind of model.

    Args:
        dtype: of the arithmetic.
        block_tokens: of a block of the caches.
    """
    try:
        return _Reader(bundle, dtype).read(block_tokens)
    except _OtherGraph:
        return None


class _Reader:
    def __init__(self, bundle: GraphBundle, dtype: str) -> None:
        (self._logits,) = bundle.model.graph.outputs
        self._cache = {tensor.name: tensor.dtype for tensor in bundle.cache}
        self._dtype, self._vocab_size = dtype, bundle.vocab_size

    def read(self, block_tokens: int) -> DecoderNames:
        product = self._node(self._logits, "Cast").inputs[0]
        normed, head = self._product(product)
        norm = self._node(normed, "SkipSimplifiedLayerNormalization")
        layers, state, epsilons = list[_Layer](), norm, {norm.attributes["epsilon"].as_float()}
        while state.op_type == "SkipSimplifiedLayerNormalization":
            layer, state = self._layer(state)
            layers.insert(0, layer)
            epsilons |= layer.epsilons
        embedded = self._node(state.inputs[0], "Gather")
        table = self._weight(embedded.inputs[0])
        self._demand(embedded.inputs[1] is not None and embedded.inputs[1].name == "input_ids")
        first, inner = layers[0].attention, layers[0].intermediate
        like = {(each.attention._replace(caches=first.caches), each.intermediate, frozenset(each.weights)) for each in layers}
        self._demand(len(like) == 1 and len(epsilons) == 1)
        hidden = self._sizes(embedded.inputs[0])[1]
        self._demand(self._sizes(head) == self._sizes(embedded.inputs[0]) == (self._vocab_size, hidden))
        shape = DecoderShape(
            layers=len(layers),
            hidden=hidden,
            heads=first.heads,
            kv_heads=first.kv_heads,
            head_dim=first.head_dim,
            intermediate=inner,
            vocabulary=self._vocab_size,
            epsilon=epsilons.pop(),
            dtype=self._dtype,
            block_tokens=block_tokens,
            qkv_bias="query_bias" in layers[0].weights,
            qk_norm="query_norm" in layers[0].weights,
        )
        return DecoderNames(
            shape=shape,
            layers=tuple(layer.weights for layer in layers),
            whole={
                "embedding": Rows(table),
                "norm": Rows(self._weight(norm.inputs[2])),
                "head": Rows(self._weight(head)),
                "cosines": Rows(first.tables[0]),
                "sines": Rows(first.tables[1]),
            },
            caches=tuple(layer.attention.caches for layer in layers),
        )

    def _layer(self, after: ir.Node) -> tuple[_Layer, ir.Node]:
        """The layer whose sum `after` normalizes, and the norm before its attention."""
        gated, down = self._product(after.inputs[1])
        (normed, gate), (also, up) = self._gate_and_up(gated)
        mlp_norm = self._node(normed, "SkipSimplifiedLayerNormalization")
        self._demand(normed is also and normed is mlp_norm.outputs[0] and after.inputs[0] is mlp_norm.outputs[3])
        attended, out = self._product(self._chosen(mlp_norm.inputs[1]))
        node = self._node(attended, "PagedAttention")
        attention = self._attention(node)
        packed, bias = node.inputs[0], None
        if packed is not None and (add := packed.producer()) is not None and add.op_type == "Add":
            packed, bias = add.inputs[0], self._weight(add.inputs[1])
        normed, qkv = self._product(packed)
        norm = normed.producer()
        residual = self._chosen(mlp_norm.inputs[0])
        first = norm is not None and norm.op_type == "SimplifiedLayerNormalization"
        norm = norm if norm is not None and first else self._node(normed, "SkipSimplifiedLayerNormalization")
        self._demand(normed is norm.outputs[0] and residual is (norm.inputs[0] if first else norm.outputs[3]))
        query = attention.heads * attention.head_dim
        starts = {"query": 0, "key": query, "value": query + attention.kv_heads * attention.head_dim}
        weights = {
            "attention_norm": Rows(self._weight(norm.inputs[1 if first else 2])),
            **{part: Rows(self._weight(qkv), start) for part, start in starts.items()},
            **({f"{part}_bias": Rows(bias, start) for part, start in starts.items()} if bias else {}),
            **{
                part: Rows(self._weight(value))
                for part, value in zip(("query_norm", "key_norm"), node.inputs[12:14], strict=True)
                if value is not None
            },
            "out": Rows(self._weight(out)),
            "mlp_norm": Rows(self._weight(mlp_norm.inputs[2])),
            "gate": Rows(self._weight(gate)),
            "up": Rows(self._weight(up)),
            "down": Rows(self._weight(down)),
        }
        epsilons = {n.attributes["epsilon"].as_float() for n in (norm, mlp_norm)}
        epsilons |= {attention.epsilon} if attention.epsilon is not None else set()
        return _Layer(weights, attention, self._sizes(down)[1], frozenset(epsilons)), norm

    def _attention(self, node: ir.Node) -> _Attention:
        names = {"num_heads", "kv_num_heads", "do_rotary", "scale", "qk_norm_epsilon"}  # no window, no other rotation
        self._demand(set(node.attributes) <= names and node.attributes["do_rotary"].as_int() == 1)
        self._demand(all(node.inputs[number] is None for number in (1, 2, 14, 15)))  # all packed; no scales of a cache
        caches = tuple(value.name.removeprefix(_PAST) if value and value.name else "" for value in node.inputs[3:5])
        self._demand(all(self._cache.get(name) == self._dtype for name in caches))
        cos, sin = node.inputs[8:10]
        heads, kv_heads = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
        dim = 2 * self._sizes(cos)[1]
        self._demand(math.isclose(node.attributes["scale"].as_float(), dim**-0.5, rel_tol=1e-6))
        epsilon = node.attributes.get("qk_norm_epsilon")
        return _Attention(
            heads=heads,
            kv_heads=kv_heads,
            head_dim=dim,
            epsilon=None if epsilon is None else epsilon.as_float(),
            tables=(self._weight(cos), self._weight(sin)),
            caches=(caches[0], caches[1]),
        )

    def _gate_and_up(self, gated: ir.Value | None) -> tuple[tuple[ir.Value, ir.Value], tuple[ir.Value, ir.Value]]:
        """Input and weight of the products of gate and up, of which `gated` is silu(gate) * up."""
        node = self._node(gated, "GatedRMSNorm", "Mul")
        if node.op_type == "GatedRMSNorm":  # see linears: the norm is none
            return self._product(node.inputs[2]), self._product(node.inputs[0])
        return self._product(self._node(node.inputs[0], "QuickGelu").inputs[0]), self._product(node.inputs[1])

    def _chosen(self, value: ir.Value | None) -> ir.Value | None:
        """What `value` has rows of, those of logits: in steps of one token of each sequence all of them."""
        node = value.producer() if value is not None else None
        if node is None or node.op_type != "Gather" or node.inputs[1] is None or node.inputs[1].name != "logits_at":
            return value
        return node.inputs[0]

    def _product(self, value: ir.Value | None) -> tuple[ir.Value, ir.Value]:
        """Input and weight [rows, columns] of the product that gives `value`."""
        node = self._node(value, "FusedMatMul")
        x, weight = node.inputs
        transposed = node.attributes.keys() == {"transB"} and node.attributes["transB"].as_int() == 1
        if x is None or weight is None or not transposed:
            raise _OtherGraph
        return x, weight

    def _node(self, value: ir.Value | None, *kinds: str) -> ir.Node:
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in kinds:
            raise _OtherGraph
        return node

    def _weight(self, value: ir.Value | None) -> str:
        tensor = value.const_value if value is not None else None
        if value is None or tensor is None or tensor.dtype != HALVES[self._dtype] or value.name is None:
            raise _OtherGraph
        return value.name

    def _sizes(self, weight: ir.Value | None) -> tuple[int, int]:
        tensor = weight.const_value if weight is not None else None
        if tensor is None or len(tensor.shape) != 2:
            raise _OtherGraph
        rows, columns = tensor.shape.numpy()
        return rows, columns

    def _demand(self, right: bool) -> None:
        if not right:
            raise _OtherGraph
