"""The KV cache's place in a graph: inputs `past.NAME`, outputs `present.NAME`; the architecture says what a layer keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from triune_runtime.manifest import CacheTensor


class KeyValue(NamedTuple):
    """Keys and values of one layer, [batch, kv_heads, length, dim]."""

    key: ir.Value
    value: ir.Value


class Latent(NamedTuple):
    """What all heads of one layer share, [batch, 1, length, lora + rope]; it is the keys and, in its first part, the values."""

    latent: ir.Value


Layer = KeyValue | Latent


def key_value_tensors(windows: Sequence[int | None], kv_heads: int, dim: int) -> tuple[CacheTensor, ...]:
    """What a slot of a key and value cache holds, layer by layer.

    Args:
        windows: of each layer, how many positions its queries see; None: all.
    """
    return tuple(
        CacheTensor(name=f"{layer}.{part}", heads=kv_heads, dim=dim, window=window)
        for layer, window in enumerate(windows)
        for part in KeyValue._fields
    )


def latent_tensors(layers: range, dim: int) -> tuple[CacheTensor, ...]:
    """What a slot of a latent cache holds, layer by layer."""
    return tuple(CacheTensor(name=f"{layer}.latent", heads=1, dim=dim) for layer in layers)


def cache_inputs(tensors: Sequence[CacheTensor]) -> list[Layer]:
    """Graph inputs for the cache, grouped by layer."""
    layers: dict[str, list[ir.Value]] = {}
    for t in tensors:
        value = ir.val(f"past.{t.name}", ir.DataType.FLOAT, ["batch", t.heads, "past_length", t.dim])
        layers.setdefault(t.name.split(".")[0], []).append(value)
    return [KeyValue(*values) if len(values) == 2 else Latent(*values) for values in layers.values()]
