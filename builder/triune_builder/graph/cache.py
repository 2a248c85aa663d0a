"""The KV cache's place in a graph: inputs `past.NAME`, outputs `present.NAME`, one pair a layer."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor


class KeyValue(NamedTuple):
    """Keys and values of one layer, [batch, kv_heads, length, dim]."""

    key: ir.Value
    value: ir.Value


def cache_tensors(layers: int, kv_heads: int, dim: int) -> tuple[CacheTensor, ...]:
    """What a slot of the cache holds, layer by layer."""
    return tuple(
        CacheTensor(name=f"{layer}.{part}", heads=kv_heads, dim=dim) for layer in range(layers) for part in ("key", "value")
    )


def cache_inputs(tensors: tuple[CacheTensor, ...]) -> list[KeyValue]:
    """Graph inputs for the cache, paired by layer."""
    values = [ir.val(f"past.{t.name}", ir.DataType.FLOAT, ["batch", t.heads, "past_length", t.dim]) for t in tensors]
    return [KeyValue(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
