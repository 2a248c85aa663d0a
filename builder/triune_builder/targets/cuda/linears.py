"""Products, gates and norms for CUDA: weights are read as they lie in a checkpoint, a product for each that lies apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.export import GraphBundle
from ...graph.rewrite import Place, Rewriter, constant_array, constant_shape
from ...graph.weights import WeightSource
from ..halves import keep_float
from ..packing import is_symmetric, offset_rest, pack
from ..routing import ints
from .kernels import CONTRIB, group_size

# GatedRMSNorm gives up * silu(gate) where its epsilon outweighs the mean square beside it and its scale undoes the root: exact
# in bfloat16, whose scale may be so large. float16 has none that would do for every input.
_EPSILON, _UNDONE = 2.0**80, 2.0**40


def lower_gates(rewriter: Rewriter, dtype: str) -> None:
    """silu(gate) * up -> one op or two."""
    for node in rewriter.find("Mul", domain=""):
        silu, up = node.inputs
        gate = _gate_of(silu)
        if gate is None or up is None:
            continue
        (use,) = node.outputs[0].uses()
        weight = use.node.inputs[1]
        assert weight is not None, "a product reads the gated numbers"
        rewriter.replace(node, [gated(rewriter, Place(rewriter, node), gate, up, constant_shape(weight)[1], dtype)])


def gated(rewriter: Rewriter, place: Place, gate: ir.Value, up: ir.Value, columns: int, dtype: str) -> ir.Value:
    """silu(gate) * up, of rows of so many columns."""
    if dtype == "bfloat16":
        size = group_size(columns)
        scale = rewriter.constant(f"gate.scale.{size}", np.full(size, _UNDONE, np.float32))
        return place.op("GatedRMSNorm", up, scale, gate, part="gated", domain=CONTRIB, activation="silu", epsilon=_EPSILON)
    silu = place.op("QuickGelu", gate, part="silu", domain=CONTRIB, alpha=1.0)
    return place.op("Mul", silu, up, part="gated")


def _gate_of(silu: ir.Value | None) -> ir.Value | None:
    """x, where `silu` is x * sigmoid(x)."""
    inner = silu.producer() if silu is not None else None
    if inner is None or inner.op_type != "Mul":
        return None
    x, share = inner.inputs
    sigmoid = share.producer() if share is not None else None
    return x if sigmoid is not None and sigmoid.op_type == "Sigmoid" and sigmoid.inputs[0] is x else None


def lower_linears(rewriter: Rewriter, bundle: GraphBundle) -> dict[str, WeightSource]:
    """Float linears -> products; where each of a product's weights has a reader of its own, one product for each.

    Returns:
        The sources of the weights that are read apart.
    """
    apart: dict[str, WeightSource] = {}
    for node in rewriter.find("Linear"):
        weight = node.inputs[1]
        assert weight is not None and weight.name is not None
        source = bundle.sources.get(weight.name)
        if source is not None and (split := _read_apart(node, source)) is not None:
            apart |= _one_by_one(rewriter, bundle, node, split, source)
            continue
        place, x = Place(rewriter, node), node.inputs[0]
        if any(use.node.op_type == "Route" for use in node.outputs[0].uses()):
            x = place.op("Cast", x, part="wide", to=ir.DataType.FLOAT)  # a rounding would choose another expert
            keep_float(weight)
        rewriter.replace(node, [_product(place, x, weight, "matmul")])
    return apart


def _product(place: Place, x: ir.Value | None, weight: ir.Value, part: str) -> ir.Value:
    return place.op("FusedMatMul", x, weight, part=part, domain=CONTRIB, transB=1)


def _read_apart(node: ir.Node, source: WeightSource) -> ir.Node | None:
    """The Split into the parts of `source` that alone reads a product, perhaps after a bias was added."""
    reader = _reader(node)
    if reader is not None and reader.op_type == "Add":
        reader = _reader(reader)
    if reader is None or reader.op_type != "Split" or len(source.parts) != len(reader.outputs):
        return None
    rows = {part.shape[0] for part in source.parts}
    is_even = len(reader.inputs) == 1 and len(rows) == 1 and reader.attributes["axis"].as_int() == -1
    return reader if is_even else None


def _reader(node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 else None


def _one_by_one(
    rewriter: Rewriter, bundle: GraphBundle, node: ir.Node, split: ir.Node, source: WeightSource
) -> dict[str, WeightSource]:
    add = _reader(node)
    bias = add.inputs[1] if add is not None and add.op_type == "Add" else None
    made: list[ir.Value | None] = []
    apart: dict[str, WeightSource] = {}
    for number in range(len(source.parts)):
        place = Place(rewriter, node)
        weight, own = _part(rewriter, source, number)
        apart |= own
        y = _product(place, node.inputs[0], weight, f"matmul.{number}")
        if bias is not None:
            assert bias.name is not None
            vector, own = _part(rewriter, bundle.sources[bias.name], number)
            apart |= own
            y = place.op("Add", y, vector, part=f"biased.{number}")
        made.append(y)
    rewriter.replace(split, made)
    for spare in (add, node) if bias is not None else (node,):
        assert spare is not None
        rewriter.graph.remove(spare, safe=True)
    return apart


def _part(rewriter: Rewriter, source: WeightSource, number: int) -> tuple[ir.Value, dict[str, WeightSource]]:
    """One of the weights that `source` stacks, under the name that the checkpoint has for it."""
    part, name = source.parts[number], source.part_names[number]
    value = rewriter.initializer(name, part.float32, ir.DataType.FLOAT, part.shape)
    return value, {name: WeightSource(name, (part,), (name,))}


def lower_blocks(rewriter: Rewriter) -> None:
    """LinearBlocks -> MatMulNBits around the middle code; what that leaves of the blocks' offsets gets a small product.

    With value = scale * (code - middle) + rest, the rest is constant in a block, so its share of the product is the block sums
    of x times `rest`. So a checkpoint's own blocks stay exact, and the op gets no zero points: its fast forms take none.
    """
    for node in rewriter.find("LinearBlocks"):
        _linear_blocks(rewriter, node)


def _linear_blocks(rewriter: Rewriter, node: ir.Node) -> None:
    x, codes, scale, offset = node.inputs
    assert codes is not None and codes.name is not None and scale is not None and offset is not None
    bits, block = node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()
    place, (rows, columns) = Place(rewriter, node), constant_shape(codes)
    name, blocks = codes.name.removesuffix(".codes"), columns // block
    packed = rewriter.initializer(
        f"{name}.packed",
        lambda: packed_blocks(constant_array(codes), bits, block),
        ir.DataType.UINT8,
        (rows, blocks, block * bits // 8),
    )
    y = block_product(place, x, packed, scale, rows=rows, columns=columns, bits=bits, block=block)
    if not is_symmetric(scale, offset, bits):
        rest = rewriter.initializer(f"{name}.rest", lambda: offset_rest(scale, offset, bits), ir.DataType.FLOAT, (blocks, rows))
        split = place.op("Reshape", x, ints(rewriter, 0, blocks, block), part="split")
        sums = place.op("ReduceSum", split, ints(rewriter, -1), part="sums", keepdims=0)
        y = place.op("Add", y, place.op("MatMul", sums, rest, part="rest"), part="sum")
    rewriter.replace(node, [y])


def block_product(
    place: Place,
    x: ir.Value | None,
    packed: ir.Value,
    scale: ir.Value,
    *,
    rows: int,
    columns: int,
    bits: int,
    block: int,
    part: str = "matmul",
) -> ir.Value:
    """x times the transposed weight [rows, columns] in blocks around the middle code."""
    return place.op("MatMulNBits", x, packed, scale, part=part, domain=CONTRIB, K=columns, N=rows, bits=bits, block_size=block)


def packed_blocks(codes: NDArray[Any], bits: int, block: int) -> NDArray[np.uint8]:
    """Codes [rows, columns] as MatMulNBits has them: [rows, blocks, bytes]."""
    return pack(codes.reshape(codes.shape[0], -1, block), bits)


def lower_norms(rewriter: Rewriter) -> None:
    """RMSNormalization -> SimplifiedLayerNormalization, or with the sum before it SkipSimplifiedLayerNormalization."""
    for node in rewriter.find("RMSNormalization", domain=""):
        x, weight = node.inputs
        epsilon, place = node.attributes["epsilon"].as_float(), Place(rewriter, node)
        add = x.producer() if x is not None else None
        if add is None or add.op_type != "Add" or any(_is_weight(value) for value in add.inputs):
            y = place.op("SimplifiedLayerNormalization", x, weight, part="norm", axis=-1, epsilon=epsilon, stash_type=1)
            rewriter.replace(node, [y])
            continue
        outputs = place.ops(
            "SkipSimplifiedLayerNormalization", *add.inputs, weight, part="skip", outputs=4, domain=CONTRIB, epsilon=epsilon
        )
        rewriter.replace(node, [outputs[0]])
        _name_used(outputs, 0 if not add.outputs[0].uses() else 3)
        rewriter.replace(add, [outputs[3]])


def _name_used(outputs: Sequence[ir.Value], last: int) -> None:
    """Let what nobody reads have no name: it is not computed then."""
    for number in range(1, 4):
        if number != last:
            outputs[number].name = ""


def _is_weight(value: ir.Value | None) -> bool:
    return value is None or value.const_value is not None
