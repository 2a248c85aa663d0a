"""Blocks shared by architectures, written only in the op vocabulary."""

from __future__ import annotations

import onnx_ir as ir

from .cache import KeyValue
from .ops import Graph, linear, rms_norm, silu


def gated_mlp(g: Graph, x: ir.Value, name: str) -> ir.Value:
    """down(silu(gate(x)) * up(x)) (Shazeer 2020); gate and up are one product."""
    with g.scope(name):
        both = linear(g, x, "gate_proj", "up_proj", fused_as="gate_up_proj")
        gate, up = g.ops("Split", both, outputs=2, axis=-1, num_outputs=2)
        return linear(g, g.op("Mul", silu(g, gate), up), "down_proj")


def attention(
    g: Graph,
    x: ir.Value,
    past: KeyValue,
    total_lengths: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    name: str,
    *,
    heads: int,
    kv_heads: int,
    dim: int,
    window: int | None = None,
    norm_epsilon: float | None = None,
) -> tuple[ir.Value, KeyValue]:
    """Grouped-query attention with rotary positions; the three projections are one product.

    Args:
        window: how many positions a query sees, its own included; None: all before it.
        norm_epsilon: of the normalization of each query and key head (q_norm, k_norm); None: there is none.
    """
    with g.scope(name):
        qkv = linear(g, x, "q_proj", "k_proj", "v_proj", fused_as="qkv_proj")
        sizes = g.constant([heads * dim, kv_heads * dim, kv_heads * dim])
        q, k, v = g.ops("Split", qkv, sizes, outputs=3, axis=-1)
        if norm_epsilon is not None:
            q, k = _norm_heads(g, q, "q_norm", dim, norm_epsilon), _norm_heads(g, k, "k_norm", dim, norm_epsilon)
        y, key, value = g.block(
            "Attention", q, k, v, past.key, past.value, total_lengths, *tables,
            outputs=3, num_heads=heads, kv_num_heads=kv_heads, window=window or 0,
        )  # fmt: skip
        return linear(g, y, "o_proj"), KeyValue(key, value)


def _norm_heads(g: Graph, x: ir.Value, name: str, dim: int, epsilon: float) -> ir.Value:
    """Each head of x [batch, n, heads dim] normalized by itself."""
    split = g.op("Reshape", x, g.constant([0, 0, -1, dim]))
    return g.op("Reshape", rms_norm(g, split, name, epsilon), g.constant([0, 0, -1]))
