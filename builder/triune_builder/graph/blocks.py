"""Blocks shared by architectures, written only in the op vocabulary."""

from __future__ import annotations

import onnx_ir as ir

from .cache import KeyValue
from .ops import Graph, linear, silu


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
    heads: int,
    kv_heads: int,
) -> tuple[ir.Value, KeyValue]:
    """Grouped-query attention with rotary positions; the three projections are one product."""
    with g.scope(name):
        qkv = linear(g, x, "q_proj", "k_proj", "v_proj", fused_as="qkv_proj")
        y, key, value = g.block(
            "Attention",
            qkv,
            past.key,
            past.value,
            total_lengths,
            *tables,
            outputs=3,
            num_heads=heads,
            kv_num_heads=kv_heads,
        )
        return linear(g, y, "o_proj"), KeyValue(key, value)
