"""Checkpoint -> float graph: runs an architecture and names the graph's inputs and outputs. Reads no weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ..checkpoint import Checkpoint
from ..errors import BuildError
from .arch import find_architecture
from .cache import cache_inputs, cache_tensors
from .ops import Graph
from .weights import WeightSource


@dataclass(frozen=True)
class GraphBundle:
    """A graph with what the later stages must know of it."""

    model: ir.Model
    sources: dict[str, WeightSource]  # initializer name -> where its numbers come from
    cache: tuple[CacheTensor, ...]
    architecture: str
    vocab_size: int


def export(checkpoint: Checkpoint, *, max_length: int) -> GraphBundle:
    """The float graph of `checkpoint` for sequences of up to `max_length` tokens.

    Inputs: `input_ids` int64 [batch, n], `total_lengths` int32 [batch] (tokens in the cache after this run),
    `logit_positions` int64 [m] (of the n, the same for every row; -1 is the last),
    `past.NAME` float32 [batch, heads, past, dim]. Outputs: `present.NAME` and
    `logits` float32 [batch, m, vocab] of those positions.

    Raises:
        BuildError: unknown architecture or config key; missing or spare weights.
    """
    model_type = str(checkpoint.config.get("model_type"))
    architecture = find_architecture(model_type)
    cfg = architecture.Config.read(checkpoint.config)
    g = Graph(checkpoint.weights)
    input_ids = ir.val("input_ids", ir.DataType.INT64, ["batch", "n"])
    total_lengths = ir.val("total_lengths", ir.DataType.INT32, ["batch"])
    logit_positions = ir.val("logit_positions", ir.DataType.INT64, ["m"])
    tensors = cache_tensors(cfg.num_hidden_layers, cfg.num_key_value_heads, cfg.head_dim)
    cache = cache_inputs(tensors)
    cos, sin = cfg.rope.tables(max_length)
    tables = g.constant(cos, np.float32, "rope.cos"), g.constant(sin, np.float32, "rope.sin")
    logits, present = architecture.forward(g, cfg, input_ids, total_lengths, logit_positions, tables, cache)

    grown = [value for pair in present for value in pair]
    outputs = {"logits": logits} | {f"present.{t.name}": v for t, v in zip(tensors, grown, strict=True)}
    model = g.model([input_ids, total_lengths, logit_positions, *(value for pair in cache for value in pair)], outputs)
    logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "m", cfg.vocab_size])
    for t, value in zip(tensors, grown, strict=True):
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["batch", t.heads, "length", t.dim])
    _check_all_read(checkpoint, g.read, cfg.tie_word_embeddings)
    return GraphBundle(model, g.sources, tensors, model_type, cfg.vocab_size)


def _check_all_read(checkpoint: Checkpoint, read: set[str], tied: bool) -> None:
    """A weight that nothing reads means that the architecture misses something."""
    spare = set(checkpoint.weights) - read
    spare = {name for name in spare if not name.endswith("rotary_emb.inv_freq")}  # older exports keep this table
    if tied:
        spare.discard("lm_head.weight")
    if spare:
        some = ", ".join(sorted(spare)[:5])
        raise BuildError(
            f"{len(spare)} weights of the checkpoint are read by nothing: {some}{' ...' if len(spare) > 5 else ''}",
            "is this checkpoint of another architecture than its config.json says?",
        )
