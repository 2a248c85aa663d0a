"""Graph -> graph for ONNX Runtime on a CPU: Triune's functions become the contrib ops it runs fast.

A function that no rule replaces keeps its body: correct, slower. Every rule is checked by the build's own verification.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import BuildError
from ...graph.export import GraphBundle
from ...graph.rewrite import Rewriter, constant_array, constant_shape
from ...quantize.schemes.blocks import WHOLE_ZEROS
from ..packing import pack
from .kernels import HEAD_UNIT
from .latent import lower_latent
from .moe import lower_experts
from .rows import CONTRIB, lower_rows

_LAST = np.array([-1], np.int64)


def lower(bundle: GraphBundle) -> GraphBundle:
    """Rewrite the graph of `bundle` in place.

    The cache changes its meaning: past and present of a layer are one buffer [batch, heads, max_length, dim], of which the
    first `total_lengths` positions hold tokens.

    Raises:
        BuildError: a size that ONNX Runtime's ops cannot take.
    """
    rewriter = Rewriter(bundle.model)
    _attention(rewriter)
    doubled = lower_latent(rewriter)
    lower_experts(rewriter)
    _norms(rewriter)
    _silu(rewriter)
    _linears(rewriter)
    _blocks(rewriter)
    lower_rows(rewriter)
    rewriter.finish({CONTRIB: 1})
    cache = tuple(dataclasses.replace(c, outputs=2) if c.name in doubled else c for c in bundle.cache)
    return dataclasses.replace(bundle, cache=cache, mtp=bundle.mtp and lower(bundle.mtp))


def _attention(rewriter: Rewriter) -> None:
    """Attention -> GroupQueryAttention, which rotates, appends in place and attends in one op.

    Queries, keys and values that are merely the parts of one product go in as that product. A layer with a window keeps a
    buffer of a few more positions than that: the op itself drops the oldest, at lengths that depend on the sequence alone.
    """
    lengths: tuple[ir.Value, ir.Value] | None = None
    for node in rewriter.find("Attention"):
        query, key, value, past_key, past_value, total_lengths, cos, sin = node.inputs
        if lengths is None:
            one = rewriter.constant("one.int32", np.array(1, np.int32))
            (last,) = rewriter.insert(node, "Sub", total_lengths, one, name="last_positions")
            (longest,) = rewriter.insert(node, "ReduceMax", total_lengths, name="longest", keepdims=0)
            lengths = last, longest
        window, dim = node.attributes["window"].as_int(), _head_dim(past_key)
        if dim % HEAD_UNIT:
            raise BuildError(
                f"heads have {dim} numbers; ONNX Runtime's attention on the CPU takes multiples of {HEAD_UNIT}",
                "this model cannot be built for this target",
            )
        outputs = rewriter.insert(
            node,
            "GroupQueryAttention",
            *_packed(query, key, value), past_key, past_value, *lengths, cos, sin,
            name=f"{node.outputs[0].name}.gqa",
            outputs=3,
            domain=CONTRIB,
            num_heads=node.attributes["num_heads"].as_int(),
            kv_num_heads=node.attributes["kv_num_heads"].as_int(),
            do_rotary=1,
            **({"local_window_size": window, "sliding_window_cache": 1} if window else {}),
        )  # fmt: skip
        rewriter.replace(node, outputs)


def _head_dim(past: ir.Value | None) -> int:
    assert past is not None and past.shape is not None
    dim = past.shape[3]
    assert isinstance(dim, int)
    return dim


def _packed(*parts: ir.Value | None) -> tuple[ir.Value | None, ...]:
    """(the product, None, None) where the three parts are the outputs of one Split of it, in order; else the parts."""
    split = parts[0].producer() if parts[0] is not None else None
    if split is None or split.op_type != "Split" or tuple(split.outputs) != parts:
        return parts
    return split.inputs[0], None, None


def _norms(rewriter: Rewriter) -> None:
    """Add + RMSNormalization -> SkipSimplifiedLayerNormalization, which also hands on the sum."""
    for node in rewriter.find("RMSNormalization", domain=""):
        x, weight = node.inputs[0], node.inputs[1]
        add = x.producer() if x is not None else None
        if add is None or add.op_type != "Add":
            continue
        outputs = rewriter.insert(
            node,
            "SkipSimplifiedLayerNormalization",
            *add.inputs,
            weight,
            name=f"{node.outputs[0].name}.skip",
            outputs=4,
            domain=CONTRIB,
            epsilon=node.attributes["epsilon"].as_float(),
        )
        outputs[1].name = outputs[2].name = ""  # mean and inverse deviation: not wanted
        rewriter.replace(node, [outputs[0]])
        rewriter.replace(add, [outputs[3]])


def _silu(rewriter: Rewriter) -> None:
    """x * sigmoid(x) -> QuickGelu with alpha 1, the same function in one pass."""
    for node in rewriter.find("Mul", domain=""):
        x, gate = node.inputs
        sigmoid = gate.producer() if gate is not None else None
        if sigmoid is not None and sigmoid.op_type == "Sigmoid" and sigmoid.inputs[0] is x:
            y = rewriter.insert(node, "QuickGelu", x, name=f"{node.outputs[0].name}.silu", domain=CONTRIB, alpha=1.0)
            rewriter.replace(node, y)


def _linears(rewriter: Rewriter) -> None:
    """Float linears -> FusedMatMul, which reads [out, in] weights as they lie in the checkpoint."""
    for node in rewriter.find("Linear"):
        y = rewriter.insert(node, "FusedMatMul", *node.inputs, name=f"{node.outputs[0].name}.matmul", domain=CONTRIB, transB=1)
        rewriter.replace(node, y)


def _blocks(rewriter: Rewriter) -> None:
    """LinearBlocks -> MatMulNBits with int8 arithmetic; offsets that no whole zero point expresses get a product of their own.

    With value = scale * (code - zero) + rest, the rest is constant in a block, so its share of the product is the block sums
    of x times `rest`: 1/32 of the arithmetic, and exact.
    """
    for node in rewriter.find("LinearBlocks"):
        x, codes, scale, offset = node.inputs
        assert codes is not None and scale is not None and offset is not None and codes.name is not None
        bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
        rows, columns = constant_shape(codes)
        name = codes.name.removesuffix(".codes")
        parts = _Parts(codes, scale, offset, bits)
        packed = rewriter.initializer(
            f"{name}.packed", parts.packed, ir.DataType.UINT8, (rows, columns // block, block * bits // 8)
        )
        is_whole = bool(offset.meta.get(WHOLE_ZEROS)) or parts.whole_zeros() is not None
        zero_points = None
        if is_whole:
            width = -(-(columns // block) * bits // 8)
            zero_points = rewriter.initializer(f"{name}.zeros", parts.packed_zeros, ir.DataType.UINT8, (rows, width))
        (y,) = rewriter.insert(
            node, "MatMulNBits", x, packed, scale, zero_points,
            name=f"{node.outputs[0].name}.matmul", domain=CONTRIB,
            bits=bits, block_size=block, K=columns, N=rows, accuracy_level=4,
        )  # fmt: skip
        if not is_whole:
            rest = rewriter.initializer(f"{name}.rest", parts.rest, ir.DataType.FLOAT, (columns // block, rows))
            shape = rewriter.constant(f"blocks.{columns}", np.array([0, 0, columns // block, block], np.int64))
            (split,) = rewriter.insert(node, "Reshape", x, shape, name=f"{node.outputs[0].name}.split")
            axis = rewriter.constant("rows.axis", _LAST)
            (sums,) = rewriter.insert(node, "ReduceSum", split, axis, name=f"{node.outputs[0].name}.sums", keepdims=0)
            (more,) = rewriter.insert(node, "MatMul", sums, rest, name=f"{node.outputs[0].name}.rest")
            (y,) = rewriter.insert(node, "Add", y, more, name=f"{node.outputs[0].name}.sum")
        rewriter.replace(node, [y])


class _Parts:
    """The tensors that MatMulNBits wants, made from codes, scale and offset when their bytes are written."""

    def __init__(self, codes: ir.Value, scale: ir.Value, offset: ir.Value, bits: int) -> None:
        self._codes, self._scale, self._offset, self._bits = codes, scale, offset, bits

    def packed(self) -> NDArray[np.uint8]:
        """Codes [rows, blocks, bytes]; four bits: the even column in the low half."""
        codes = constant_array(self._codes).reshape(*constant_array(self._scale).shape, -1)
        return pack(codes, self._bits)

    def whole_zeros(self) -> NDArray[np.uint8] | None:
        """Zero points [rows, blocks] if every offset is a whole number of steps within the codes' range, else None."""
        scale, offset = constant_array(self._scale), constant_array(self._offset)
        if np.any((scale == 0) & (offset != 0)):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = np.where(scale != 0, -offset / scale, 0)
        whole = np.rint(zeros)
        fits = np.abs(zeros - whole).max() < 1e-3 and whole.min() >= 0 and whole.max() < 2**self._bits
        return whole.astype(np.uint8) if fits else None

    def packed_zeros(self) -> NDArray[np.uint8]:
        zeros = self.whole_zeros()
        assert zeros is not None
        return pack(zeros, self._bits)

    def rest(self) -> NDArray[np.float32]:
        """What the middle zero point, 2^(bits-1), leaves of the offsets: [blocks, rows]."""
        rest = constant_array(self._offset) + constant_array(self._scale) * np.float32(2 ** (self._bits - 1))
        return np.ascontiguousarray(rest.T.astype(np.float32))
