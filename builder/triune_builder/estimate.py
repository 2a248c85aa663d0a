"""What a build will weigh, from headers alone: parameters, and bytes on disk and in memory. Reads no weight."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from triune_runtime.manifest import CacheTensor, Limits

from .checkpoint import Checkpoint, Tensor
from .graph.promises import settled_config
from .lengths import Room, own_length
from .plan import BuildPlan
from .targets import find_target
from .targets.sizes import Kind, PrecisionSize, Weight


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The plan of a build. Bytes are estimates, counts exact."""

    model: str
    target: str
    precision: str
    architecture: str
    limits: Limits
    length: str  # why the limits' max_length is what it is
    parameters: int  # of what the engine computes
    active_parameters: int  # of these, what one token meets: all but the table's rows and the experts not chosen
    spare_parameters: int  # of layers that predict further tokens, which this graph leaves
    tensors: int
    checkpoint_bytes: dict[str, int]  # type -> bytes
    largest_tensor: int  # numbers
    kv_bytes_per_token: int  # of one sequence, all layers
    kv_bytes_per_slot: int  # of one sequence of the greatest length
    precisions: dict[str, PrecisionSize]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def tables(self) -> Group:
        """The plan for a terminal."""
        head = Text(f"{self.model} · target {self.target} · {self.architecture} · {self.tensors:,} tensors, all as promised")
        facts = _table("the model", "", "")
        for name, value in self._facts():
            facts.add_row(name, value)
        sizes = _table("by precision (estimates)", "precision", "written", "read in place", "weights in memory", "to serve")
        for name, size in self.precisions.items():
            row = (_bytes(n) for n in (size.written, size.in_place, size.loaded, size.serving))
            sizes.add_row(f"{name} *" if name == self.precision else name, *row)
        return Group(head, facts, sizes)

    def _facts(self) -> list[tuple[str, str]]:
        stored = ", ".join(f"{dtype} {_bytes(n)}" for dtype, n in sorted(self.checkpoint_bytes.items(), key=lambda e: -e[1]))
        limits = f"{self.limits.max_sequences} sequences of {self.limits.max_length:,} tokens, {self.length}"
        spare = f"; {_count(self.spare_parameters)} more predict further tokens" if self.spare_parameters else ""
        return [
            ("parameters", f"{_count(self.parameters)} ({self.parameters:,}){spare}"),
            ("active for a token", f"{_count(self.active_parameters)} ({self.active_parameters:,})"),
            ("checkpoint", f"{_bytes(sum(self.checkpoint_bytes.values()))}: {stored}"),
            ("largest tensor", f"{self.largest_tensor:,} numbers, {_bytes(4 * self.largest_tensor)} as float32"),
            ("KV cache", f"{self.kv_bytes_per_token:,} bytes a token, {_bytes(self.kv_bytes_per_slot)} a slot"),
            ("limits", limits),
            ("KV cache when full", f"{_bytes(self.limits.max_sequences * self.kv_bytes_per_slot)} for all sequences"),
        ]


def estimate(
    plan: BuildPlan, why: str, config: Mapping[str, Any], weights: Mapping[str, Tensor], cache: Sequence[CacheTensor]
) -> Estimate:
    """The estimate for a checkpoint whose weights are those that `config` promises; the plan's target has one."""
    target = find_target(plan.target)
    sizes, exported, cache = target.estimate, tuple(cache), target.cache(plan, tuple(cache))
    assert sizes is not None, f"target {plan.target} estimates nothing"
    _, cfg = settled_config(config, weights.keys())
    layers, predicting = cfg.num_hidden_layers, getattr(cfg, "num_nextn_predict_layers", 0)
    extra = tuple(f"model.layers.{layers + i}." for i in range(predicting))
    used = [_weight(name, tensor) for name, tensor in weights.items() if not (extra and name.startswith(extra))]
    spare = sum(tensor.size for name, tensor in weights.items() if extra and name.startswith(extra))
    tied = bool(cfg.tie_word_embeddings)
    slot = _slot_bytes(cache, plan)
    chosen = getattr(cfg, "num_experts_per_tok", 0) / getattr(cfg, "n_routed_experts", 1)
    idle = sum(w.size for w in used if w.kind == "expert") * (1 - chosen)
    table = 0 if tied else sum(w.size for w in used if w.kind == "table")
    by_dtype: dict[str, int] = {}
    for tensor in weights.values():
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.nbytes
        for part in tensor.beside:
            by_dtype[part.dtype] = by_dtype.get(part.dtype, 0) + part.nbytes
    return Estimate(
        model=plan.model,
        target=plan.target,
        precision=plan.precision,
        architecture=str(config.get("model_type")),
        limits=plan.limits,
        length=why,
        parameters=sum(w.size for w in used),
        active_parameters=round(sum(w.size for w in used) - idle - table),
        spare_parameters=spare,
        tensors=len(weights),
        checkpoint_bytes=by_dtype,
        largest_tensor=max(tensor.size for tensor in weights.values()),
        kv_bytes_per_token=sum(c.bytes_per_position for c in cache),
        kv_bytes_per_slot=slot,
        precisions={
            name: dataclasses.replace(size, serving=size.serving + plan.limits.max_sequences * _slot_bytes(kept, plan))
            for name, size in sizes(used, tied, 0).items()
            for kept in [target.cache(dataclasses.replace(plan, precision=name), exported)]
        },
    )


def _slot_bytes(cache: Sequence[CacheTensor], plan: BuildPlan) -> int:
    """Of one sequence of the greatest length."""
    return sum(c.bytes_per_position * c.positions(plan.limits.max_length) for c in cache)


def room_of(plan: BuildPlan, checkpoint: Checkpoint) -> Room:
    """What decides how long the sequences of `plan` may be.

    Raises:
        BuildError: config.json is of no architecture that is known, or not understood.
    """
    target, loaded = find_target(plan.target), None
    _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
    if target.estimate is not None:
        weights = described_weights(checkpoint.weights)
        sizes = target.estimate(weights, bool(cfg.tie_word_embeddings), 0)
        loaded = sizes[plan.precision].loaded if plan.precision in sizes else None
    return Room(own=own_length(checkpoint.config, cfg.rope.longest), cache=target.cache(plan, tuple(cfg.cache)), loaded=loaded)


def described_weights(weights: Mapping[str, Tensor]) -> list[Weight]:
    """Every tensor of a checkpoint, as far as sizes and shapes go."""
    return [_weight(name, tensor) for name, tensor in weights.items()]


def _weight(name: str, tensor: Tensor) -> Weight:
    nbytes = tensor.nbytes + sum(part.nbytes for part in tensor.beside)
    return Weight(name=name, kind=kind_of(name, tensor.shape), shape=tensor.shape, dtype=tensor.dtype, nbytes=nbytes)


def kind_of(name: str, shape: Sequence[int]) -> Kind:
    """What a weight is to whoever decides how it is kept."""
    if len(shape) < 2:
        return "vector"
    if name == "model.embed_tokens.weight":
        return "table"
    if name == "lm_head.weight":
        return "head"
    if name.endswith(".mlp.gate.weight"):
        return "router"
    if ".mlp.experts." in name:
        return "expert"
    return "expanded" if name.endswith(".kv_b_proj.weight") else "linear"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column else "left", overflow="fold")
    return table


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return f"{number:,}"


def _bytes(number: float) -> str:
    if number < 1:
        return "0"
    power = min(int(math.log10(number) // 3), 4)
    return f"{number / 1000**power:.4g} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"
