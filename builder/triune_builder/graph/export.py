"""Checkpoint -> float graph: runs an architecture and names the graph's inputs and outputs. Reads no weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from triune_runtime.manifest import CacheTensor

from ..checkpoint import Checkpoint
from ..errors import BuildError
from .cache import Layer, cache_inputs
from .ops import Graph
from .promises import settled_config, without_idle_biases
from .weights import Source, StackSource, WeightSource, same_values


@dataclass(frozen=True)
class GraphBundle:
    """A graph with what the later stages must know of it."""

    model: ir.Model
    sources: dict[str, WeightSource]  # initializer name -> where its numbers come from
    cache: tuple[CacheTensor, ...]
    architecture: str
    vocab_size: int
    stacks: dict[str, StackSource] = field(default_factory=dict)  # the same as `sources`, of weights stacked for experts
    mtp: GraphBundle | None = None  # the layer of multi-token prediction as a graph of its own
    remarks: tuple[str, ...] = ()  # what was settled in reading config.json, in sentences


def export(checkpoint: Checkpoint, *, max_length: int, with_mtp: bool = False, reads_head: bool = True) -> GraphBundle:
    """The float graph of `checkpoint` for sequences of up to `max_length` tokens.

    Inputs: `input_ids` int64 [batch, n], `total_lengths` int32 [batch] (tokens in the cache after this run),
    `logit_positions` int64 [m] (of the n, the same for every row; -1 is the last),
    `past.NAME` float32 [batch, heads, past, dim]. Outputs: `present.NAME` and
    `logits` float32 [batch, m, vocab] of those positions.

    Args:
        with_mtp: where the checkpoint has a layer of multi-token prediction, export it as the bundle's `mtp` and let the
            graph output what that reads: `hidden` float32 [batch, n, hidden]. `mtp` has the inputs of the graph and
            `hidden`, with in `input_ids` the token after each position, and its own cache; its outputs are the same, but
            what a further token needs is named `next_hidden`.
        reads_head: where the checkpoint stores a head that config.json ties to the table, compare the two: without, they
            are taken for equal.

    Raises:
        BuildError: unknown architecture or config key; missing or spare weights.
    """
    model_type = str(checkpoint.config.get("model_type"))
    architecture, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
    weights = without_idle_biases(architecture.promises(cfg), checkpoint.weights)
    cfg = _with_stored_head(cfg, weights, compare=reads_head)
    mtp = None
    if with_mtp and architecture.mtp and cfg.num_nextn_predict_layers:
        run = _Run(Graph(weights), cfg, cfg.mtp_cache, max_length)
        hidden = ir.val("hidden", ir.DataType.FLOAT, ["batch", "n", cfg.hidden_size])
        mtp = run.close(architecture.mtp(run.g, cfg, hidden, *run.arguments), model_type, hidden)
        _check_all_read({name for name in weights if name.startswith(cfg.mtp_prefix)}, run.g.read)
    run = _Run(Graph(weights), cfg, cfg.cache, max_length)
    options = {"feeds_mtp": True} if mtp else {}
    bundle = run.close(architecture.forward(run.g, cfg, *run.arguments, **options), model_type)
    spare = {name for name in weights if not name.endswith("rotary_emb.inv_freq")}  # older exports keep this table
    _check_all_read(spare - ({"lm_head.weight"} if cfg.tie_word_embeddings else set()), run.g.read)
    return dataclasses.replace(bundle, mtp=mtp, remarks=cfg.remarks)


def _with_stored_head(cfg: Any, weights: Mapping[str, Source], *, compare: bool) -> Any:
    """`cfg`, untied where a head of its own is stored all the same (transformers' PreTrainedModel.tie_weights)."""
    table, head = weights.get("model.embed_tokens.weight"), weights.get("lm_head.weight")
    if not cfg.tie_word_embeddings or table is None or head is None or (compare and same_values(table, head)):
        return cfg
    both = "tie_word_embeddings is true in config.json and lm_head.weight is stored"
    if not compare:
        return dataclasses.replace(cfg, remarks=(*cfg.remarks, f"{both}: a build compares it with model.embed_tokens.weight"))
    remark = f"{both}, with other numbers than model.embed_tokens.weight: the stored head is used, as in transformers"
    return dataclasses.replace(cfg, tie_word_embeddings=False, remarks=(*cfg.remarks, remark))


class _Run:
    """A graph that is being recorded: its inputs, and how it is closed."""

    def __init__(self, g: Graph, cfg: Any, tensors: tuple[CacheTensor, ...], max_length: int) -> None:
        self.g, self._cfg, self._tensors = g, cfg, tensors
        self._inputs = [
            ir.val("input_ids", ir.DataType.INT64, ["batch", "n"]),
            ir.val("total_lengths", ir.DataType.INT32, ["batch"]),
            ir.val("logit_positions", ir.DataType.INT64, ["m"]),
        ]
        self._cache = cache_inputs(tensors)
        cos, sin = cfg.rope.tables(max_length)
        self._tables = g.constant(cos, np.float32, "rope.cos"), g.constant(sin, np.float32, "rope.sin")

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What every architecture reads."""
        return *self._inputs, self._tables, self._cache

    def close(self, recorded: tuple[ir.Value, Sequence[Layer]], architecture: str, *more: ir.Value) -> GraphBundle:
        """The graph, once logits and the grown cache are recorded; `more` are further inputs."""
        logits, present = recorded
        grown = [value for layer in present for value in layer]
        outputs = {"logits": logits} | {f"present.{t.name}": v for t, v in zip(self._tensors, grown, strict=True)}
        model = self.g.model([*self._inputs, *more, *(value for layer in self._cache for value in layer)], outputs)
        logits.type, logits.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["batch", "m", self._cfg.vocab_size])
        for t, value in zip(self._tensors, grown, strict=True):
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(["batch", t.heads, "length", t.dim])
        for value in self.g.outputs.values():
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(["batch", "n", self._cfg.hidden_size])
        return GraphBundle(model, self.g.sources, self._tensors, architecture, self._cfg.vocab_size, self.g.stacks)


def _check_all_read(names: set[str], read: set[str]) -> None:
    """A weight that nothing reads means that the architecture misses something."""
    spare = names - read
    if spare:
        some = ", ".join(sorted(spare)[:5])
        raise BuildError(
            f"{len(spare)} weights of the checkpoint are read by nothing: {some}{' ...' if len(spare) > 5 else ''}",
            "is this checkpoint of another architecture than its config.json says?",
        )
