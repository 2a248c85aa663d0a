"""Latent attention for ONNX Runtime on a CPU: one GroupQueryAttention over the latent as the only key and value head."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import BuildError
from ...graph.rewrite import Place, Rewriter, constant_array, constant_shape
from .kernels import LATENT_UNIT
from .rows import CONTRIB


def lower_latent(rewriter: Rewriter) -> set[str]:
    """LatentAttention -> the absorbed query, then GroupQueryAttention with one key and value head of lora + rope numbers.

    Keys and values are one tensor, so past and present of both are bound to one buffer: the op appends the same numbers
    twice to the same place. Returns the names of the cache tensors that so have a second output, `present.NAME.2`.

    Prefill takes the same form. Keys and values written out for all heads took 0.55 to 0.95 of its time, measured on chunks
    of 256 tokens; but they need a second path through If, beside an op that appends, and attention is a third of r1-nano's
    prefill.

    Raises:
        BuildError: lora + rope is no multiple of 8.
    """
    doubled: set[str] = set()
    shared: _Shared | None = None
    for node in rewriter.find("LatentAttention"):
        shared = shared or _Shared(Place(rewriter, node), rewriter, node)
        y, present, again = _lower(rewriter, node, shared)
        output = node.outputs[1].name
        assert output is not None
        rewriter.replace(node, [y, present])
        again.name = f"{output}.2"
        again.type, again.shape = present.type, present.shape
        rewriter.graph.outputs.append(again)
        doubled.add(output.removeprefix("present."))
    return doubled


def _lower(rewriter: Rewriter, node: ir.Node, shared: _Shared) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The layer's result, and the grown cache twice.

    The products with the up-projections are batched over sequences and heads, n rows each: decoding multiplies one row
    whatever the batch, so that a sequence's bits do not depend on it.
    """
    query, latent, key_rope, key_up, value_up, past, _, cos, sin = node.inputs
    assert key_up is not None and value_up is not None and past is not None and past.shape is not None
    (heads, nope, lora), dim = constant_shape(key_up), past.shape[3]
    assert isinstance(dim, int)
    if dim % LATENT_UNIT:
        raise BuildError(
            f"a token's latent has {lora} + {dim - lora} numbers; ONNX Runtime attends over multiples of {LATENT_UNIT}",
            "this model cannot be built for this target",
        )
    place = Place(rewriter, node)
    turn = {"interleaved": node.attributes["interleaved"].as_int()}
    by_heads = rewriter.constant(f"latent.heads.{heads}", np.array([0, 0, heads, -1], np.int64))
    merged = rewriter.constant("latent.merged", np.array([0, 0, -1], np.int64))
    sizes = rewriter.constant(f"latent.sizes.{nope}.{dim - lora}", np.array([nope, dim - lora], np.int64))

    split = place.op("Transpose", place.op("Reshape", query, by_heads, part="split"), part="heads", perm=[0, 2, 1, 3])
    q_nope, q_rope = place.ops("Split", split, sizes, part="parts", outputs=2, axis=-1)
    q_rope = place.op("RotaryEmbedding", q_rope, cos, sin, shared.positions, part="q_rope", **turn)
    absorbed = place.op("Concat", _by_head(rewriter, place, q_nope, key_up, "absorbed"), q_rope, part="joined", axis=-1)
    q = place.op("Reshape", place.op("Transpose", absorbed, part="tokens", perm=[0, 2, 1, 3]), merged, part="query")
    k_rope = place.op("RotaryEmbedding", key_rope, cos, sin, shared.positions, part="k_rope", num_heads=1, **turn)
    key = place.op("Concat", latent, k_rope, part="key", axis=-1)
    mixed, present, again = place.ops(
        "GroupQueryAttention", q, key, key, past, past, shared.last, shared.longest,
        part="gqa", outputs=3, domain=CONTRIB, num_heads=heads, kv_num_heads=1, do_rotary=0,
        scale=node.attributes["scale"].as_float(),
    )  # fmt: skip
    mixed = place.op("Transpose", place.op("Reshape", mixed, by_heads, part="mixed"), part="by_head", perm=[0, 2, 1, 3])
    values = _by_head(rewriter, place, mixed, _padded(rewriter, value_up, dim), "values")
    y = place.op("Reshape", place.op("Transpose", values, part="together", perm=[0, 2, 1, 3]), merged, part="merged")
    return y, present, again


def _by_head(rewriter: Rewriter, place: Place, x: ir.Value, weight: ir.Value, part: str) -> ir.Value:
    """x [batch, heads, n, in] times weight [heads, in, out], head by head.

    A single head's MatMul would be made one product over the rows of all sequences, whose kernel, and so whose bits, change
    with their number. FusedMatMul reads the weight turned over, as in every other product: there they do not.
    """
    heads, rows, columns = constant_shape(weight)
    if heads > 1:
        return place.op("MatMul", x, weight, part=part)

    def turned() -> NDArray[np.float32]:
        return np.ascontiguousarray(constant_array(weight)[0].T)

    only = rewriter.initializer(f"{weight.name}.turned", turned, ir.DataType.FLOAT, (columns, rows))
    return place.op("FusedMatMul", x, only, part=part, domain=CONTRIB, transB=1)


def _padded(rewriter: Rewriter, value_up: ir.Value, dim: int) -> ir.Value:
    """value_up [heads, dim, v] with zero rows for the rotary part, which the op mixes too: cheaper than to cut it off."""
    heads, lora, v = constant_shape(value_up)

    def make() -> NDArray[np.float32]:
        return np.pad(constant_array(value_up), ((0, 0), (0, dim - lora), (0, 0)))

    return rewriter.initializer(f"{value_up.name}.padded", make, ir.DataType.FLOAT, (heads, dim, v))


class _Shared:
    """What all layers read of the run: each token's position, each sequence's last one, and the longest sequence."""

    def __init__(self, place: Place, rewriter: Rewriter, node: ir.Node) -> None:
        query, total_lengths = node.inputs[0], node.inputs[6]
        zero, one = (rewriter.constant(f"latent.{i}", np.array(i, np.int64)) for i in (0, 1))
        last_axis = rewriter.constant("latent.axis", np.array([-1], np.int64))
        one32 = rewriter.constant("one.int32", np.array(1, np.int32))
        self.last = place.op("Sub", total_lengths, one32, part="last")
        self.longest = place.op("ReduceMax", total_lengths, part="longest", keepdims=0)
        n = place.op("Squeeze", place.op("Shape", query, part="shape", start=1, end=2), part="n")
        total = place.op(
            "Cast", place.op("Unsqueeze", total_lengths, last_axis, part="total32"), part="total", to=ir.DataType.INT64
        )
        first = place.op("Sub", total, n, part="first")  # [batch, 1]
        self.positions = place.op("Add", first, place.op("Range", zero, n, one, part="steps"), part="positions")
