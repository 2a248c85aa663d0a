"""Attention in products and a softmax: rotate, write rows into the slot's linear buffer, attend under a mask of positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....graph.rewrite import Place, constant_array, constant_shape
from ...halves import keep_float
from .run import DECODE, PREFILL, Run

_HIDDEN = -6e4  # the score of a key that a query does not see; halves hold it, should an engine choose them


def lower_attention(run: Run) -> None:
    """Attention of several key and value heads; queries that share one are the rows of one product."""
    for node in run.rewriter.find("Attention"):
        query, key, value, past_key, past_value, _, cos, sin = node.inputs
        heads, kv_heads, window = (node.attributes[n].as_int() for n in ("num_heads", "kv_num_heads", "window"))
        dim, place = cache_dim(past_key), Place(run.rewriter, node)
        turn = Rotation(run, place, cos, sin, dim)

        def split(x: ir.Value | None, count: int, part: str, dim: int = dim, place: Place = place) -> ir.Value:
            apart = place.op("Reshape", x, run.ints(run.batch, run.tokens, count, dim), part=f"{part}.split")
            return place.op("Transpose", apart, part=part, perm=[0, 2, 1, 3])

        q = place.op("Mul", turn.by_heads(split(query, heads, "q"), "q"), run.half(dim**-0.5), part="q_scaled")
        k, v = turn.by_heads(split(key, kv_heads, "k"), "k"), split(value, kv_heads, "v")
        keys = write(run, place, past_key, k, kv_heads, "keys")
        values = write(run, place, past_value, v, kv_heads, "values")
        grouped = place.op("Reshape", q, run.ints(0, kv_heads, -1, dim), part="grouped")
        mixed = attend(run, place, grouped, keys, values, (heads, kv_heads), window)
        apart = place.op("Reshape", mixed, run.ints(0, heads, -1, dim), part="apart")
        together = place.op("Transpose", apart, part="together", perm=[0, 2, 1, 3])
        y = place.op("Reshape", together, run.ints(-1, heads * dim), part="merged")
        run.rewriter.replace(node, [y, keys, values])


def lower_latent(run: Run) -> None:
    """LatentAttention, absorbed: all queries of a sequence over its latents, which are the only key and value head.

    Products with a weight of each head have the heads first, so that neither side is repeated.
    """
    for node in run.rewriter.find("LatentAttention"):
        query, latent, key_rope, key_up, value_up, past, _, cos, sin = node.inputs
        assert key_up is not None
        heads, nope, lora = constant_shape(key_up)
        size = cache_dim(past)
        rope, place = size - lora, Place(run.rewriter, node)
        turn = Rotation(run, place, cos, sin, rope, interleaved=bool(node.attributes["interleaved"].as_int()))

        split = place.op("Reshape", query, run.ints(-1, heads, nope + rope), part="split")
        by_head = place.op("Transpose", split, part="heads", perm=[1, 0, 2])  # [heads, batch n, nope + rope]
        q_nope = cut(run, place, by_head, 0, nope, 2, "q_nope")
        q_rope = turn.by_rows(cut(run, place, by_head, nope, nope + rope, 2, "q_rope"), "q")
        q = place.op("Concat", place.op("MatMul", q_nope, key_up, part="absorbed"), q_rope, part="query", axis=2)
        q = place.op("Mul", q, run.half(node.attributes["scale"].as_float()), part="scaled")
        grouped = place.op("Reshape", q, run.ints(heads, run.batch, run.tokens, size), part="by_sequence")
        grouped = place.op("Transpose", grouped, part="sequences_first", perm=[1, 0, 2, 3])
        grouped = place.op(
            "Reshape", grouped, run.ints(run.batch, 1, heads if run.kind == DECODE else -1, size), part="grouped"
        )
        turned = turn.by_rows(place.op("Reshape", key_rope, run.ints(1, -1, rope), part="k_rope"), "k")
        key = place.op("Concat", place.op("Reshape", latent, run.ints(1, -1, lora), part="latent"), turned, part="key", axis=2)
        row = place.op("Reshape", key, run.ints(run.batch, 1, run.tokens, size), part="row")
        cached = write(run, place, past, row, 1, "latents")
        mixed = attend(run, place, grouped, cached, cached, (heads, 1), 0)
        mixed = cut(run, place, mixed, 0, lora, 3, "latent_part")
        apart = place.op("Reshape", mixed, run.ints(run.batch, heads, run.tokens, lora), part="apart")
        apart = place.op("Transpose", apart, part="heads_first", perm=[1, 0, 2, 3])
        apart = place.op("Reshape", apart, run.ints(heads, -1, lora), part="rows")
        y = place.op("Transpose", place.op("MatMul", apart, value_up, part="values"), part="together", perm=[1, 0, 2])
        width = heads * constant_shape(value_up)[2]  # type: ignore[arg-type]  # it is a weight
        run.rewriter.replace(node, [place.op("Reshape", y, run.ints(-1, width), part="merged"), cached])


def attend(
    run: Run, place: Place, q: ir.Value, keys: ir.Value, values: ir.Value, heads: tuple[int, int], window: int
) -> ir.Value:
    """softmax(q k^T) v of the keys that are seen; q and the result [batch, kv_heads, heads/kv_heads n, dim].

    What a slot holds of a former owner is replaced, not added to: its scores may be anything.
    """
    count, groups = heads
    turned = place.op("Transpose", keys, part="turned", perm=[0, 1, 3, 2])
    scores = place.op("MatMul", q, turned, part="scores")
    wide = place.op("Cast", scores, part="wide_scores", to=ir.DataType.FLOAT)
    if run.kind == PREFILL:
        wide = place.op("Reshape", wide, run.ints(0, count, -1, run.capacity), part="score_rows")
    low = keep_float(run.rewriter.constant("score.hidden", np.array(_HIDDEN, np.float32)))
    shown = place.op("Where", hidden(run, place, window), low, wide, part="shown")
    shares = place.op("Softmax", shown, part="wide_shares", axis=-1)
    half = place.op("Cast", shares, part="shares", to=ir.DataType.FLOAT16)
    if run.kind == PREFILL:
        half = place.op("Reshape", half, run.ints(0, groups, -1, run.capacity), part="share_rows")
    return place.op("MatMul", half, values, part="mixed")


def hidden(run: Run, place: Place, window: int) -> ir.Value:
    """Whether a query does not see the key, bool [batch, 1, n, capacity]; a `window` of 0 is none."""

    def make() -> ir.Value:
        slots = run.rewriter.constant("slots", np.arange(run.capacity, dtype=np.int32).reshape(1, 1, 1, -1))
        now = place.op("Reshape", run.positions, run.ints(0, 1, -1, 1), part=f"now.{window}")
        later = place.op("Greater", slots, now, part=f"later.{window}")
        if window:
            width = run.rewriter.constant(f"window.{window}", np.array(window - 1, np.int32))
            old = place.op("Less", slots, place.op("Sub", now, width, part=f"oldest.{window}"), part=f"old.{window}")
            return place.op("Or", later, old, part=f"hidden.{window}")
        return later

    return run.shared(f"hidden.{window}", make)


def write(run: Run, place: Place, past: ir.Value | None, rows: ir.Value, heads: int, part: str) -> ir.Value:
    """The buffer [batch, heads, capacity, dim] with `rows` [batch, heads, n, dim] in the rows of their positions."""
    dim = cache_dim(past)

    def make() -> ir.Value:
        first = run.rewriter.constant(
            f"head_rows.{heads}", (np.arange(heads, dtype=np.int32) * run.capacity).reshape(1, -1, 1, 1)
        )
        if run.kind == DECODE:
            slot = run.rewriter.constant(f"slot_rows.{heads}", np.array(heads * run.capacity, np.int32))
            begin = place.op("Mul", run.sequences, slot, part=f"begin.{heads}")
            begin = place.op("Reshape", begin, run.ints(-1, 1, 1, 1), part=f"slot.{heads}")
            first = place.op("Add", begin, first, part=f"head.{heads}")
        now = place.op("Reshape", run.positions, run.ints(0, 1, -1, 1), part=f"place.{heads}")
        return place.op("Cast", place.op("Add", first, now, part=f"row32.{heads}"), part=f"row.{heads}", to=ir.DataType.INT64)

    where = run.shared(f"rows.{heads}", make)
    flat = place.op("Reshape", past, run.ints(-1, dim), part=f"{part}.flat")
    written = place.op("ScatterND", flat, where, rows, part=f"{part}.written")
    return place.op("Reshape", written, run.ints(-1, heads, run.capacity, dim), part=part)


def cut(run: Run, place: Place, x: ir.Value, start: int, end: int, axis: int, part: str) -> ir.Value:
    """The numbers `start` to `end - 1` of an axis."""
    return place.op("Slice", x, run.ints(start), run.ints(end), run.ints(axis), part=part)


class Rotation:
    """Rotary positions: x cos + swapped(x) sin, the second half of a head beside the first; tables are looked up once."""

    def __init__(
        self, run: Run, place: Place, cos: ir.Value | None, sin: ir.Value | None, dim: int, *, interleaved: bool = False
    ) -> None:
        assert cos is not None and sin is not None
        self._run, self._place, self._dim, self._interleaved = run, place, dim, interleaved
        self._cos = self._looked_up(cos, "cos", (1.0, 1.0))
        self._sin = self._looked_up(sin, "sin", (-1.0, 1.0))

    def _looked_up(self, table: ir.Value, name: str, signs: tuple[float, float]) -> ir.Value:
        """Of every new token, [batch, n, dim]. There are rows for all of a slot: the last fills up runs."""

        def make() -> ir.Value:
            half = constant_array(table)
            half = np.concatenate([half, np.repeat(half[-1:], self._run.capacity - len(half), 0)])
            both = np.concatenate([sign * half for sign in signs], 1).astype(np.float32)
            whole = self._run.rewriter.constant(f"{table.name}.whole", both)
            return self._place.op("Gather", whole, self._run.positions, part=name, axis=0)

        return self._run.shared(f"{name}.{table.name}", make)

    def by_heads(self, x: ir.Value, part: str) -> ir.Value:
        """x [batch, heads, n, dim], rotated."""
        shape = (0, 1, -1, self._dim)
        return self._turned(x, part, "heads", shape)

    def by_rows(self, x: ir.Value, part: str) -> ir.Value:
        """x [heads, batch n, dim], rotated."""
        if self._interleaved:  # (2i, 2i + 1) -> (i, i + dim/2), of queries and keys alike: their products stay
            pairs = self._place.op("Reshape", x, self._run.ints(0, -1, self._dim // 2, 2), part=f"{part}.pairs")
            sides = self._place.op("Transpose", pairs, part=f"{part}.sides", perm=[0, 1, 3, 2])
            x = self._place.op("Reshape", sides, self._run.ints(0, -1, self._dim), part=f"{part}.sorted")
        return self._turned(x, part, "rows", (1, -1, self._dim))

    def _turned(self, x: ir.Value, part: str, form: str, shape: tuple[int, ...]) -> ir.Value:
        run, place, half, axis = self._run, self._place, self._dim // 2, len(shape) - 1
        cos, sin = (
            run.shared(
                f"{form}.{table.name}",
                lambda table=table: place.op("Reshape", table, run.ints(*shape), part=f"{form}.{table.name}"),  # type: ignore[misc]
            )
            for table in (self._cos, self._sin)
        )
        swapped = place.op(
            "Concat",
            cut(run, place, x, half, self._dim, axis, f"{part}.second"),
            cut(run, place, x, 0, half, axis, f"{part}.first"),
            part=f"{part}.swapped",
            axis=axis,
        )
        return place.op(
            "Add",
            place.op("Mul", x, cos, part=f"{part}.straight"),
            place.op("Mul", swapped, sin, part=f"{part}.crossed"),
            part=f"{part}.turned",
        )


def cache_dim(past: ir.Value | None) -> int:
    """Numbers of a position of a cache tensor."""
    assert past is not None and past.shape is not None
    return int(past.shape[3])  # type: ignore[arg-type]  # static
