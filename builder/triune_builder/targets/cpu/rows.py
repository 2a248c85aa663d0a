"""w8a8 for ONNX Runtime on a CPU: quantized rows and their products, arranged so that few passes over activations remain."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...graph.rewrite import Rewriter, constant_array, constant_shape

CONTRIB = "com.microsoft"


def lower_rows(rewriter: Rewriter) -> None:
    """LinearW8A8 -> MatMulIntegerToFloat times the rows' own scales; QuantizeRows -> standard ops."""
    _products(rewriter)
    step = rewriter.constant("rows.step", np.array(1 / 127, np.float32))
    middle = rewriter.constant("rows.middle", np.array(128, np.uint8))
    last = rewriter.constant("rows.axis", np.array([-1], np.int64))
    for node in rewriter.find("QuantizeRows"):
        (x,) = node.inputs
        assert x is not None
        name = node.outputs[0].name
        (size,) = rewriter.insert(node, "Abs", x, name=f"{name}.abs")
        # No guard against a row of zeros: whatever integers 0/0 is quantized to, they are multiplied by that zero again.
        (scale,) = rewriter.insert(node, "ReduceMax", size, last, name=f"{name}.scale", keepdims=1)
        (unit,) = rewriter.insert(node, "Div", x, scale, name=f"{name}.unit")
        (codes,) = rewriter.insert(node, "QuantizeLinear", unit, step, middle, name=f"{name}.uint8")
        rewriter.replace(node, [codes, scale])


def _products(rewriter: Rewriter) -> None:
    """Lower every LinearW8A8: the product of integers, then the rows' scales.

    A product that is only read in equal parts becomes one product a part: splitting it would copy all of it.
    """
    step = rewriter.constant("rows.step", np.array(1 / 127, np.float32))
    middle = rewriter.constant("rows.middle", np.array(128, np.uint8))
    for node in rewriter.find("LinearW8A8"):
        rows, row_scale, weight, weight_scale = node.inputs
        assert weight is not None and weight_scale is not None
        split = _even_split(node.outputs[0])
        parts = _equal_parts(rewriter, weight, weight_scale, len(split.outputs)) if split else [(weight, weight_scale)]
        products: list[ir.Value] = []
        for i, part in enumerate(parts):
            name = f"{node.outputs[0].name}.{i}"
            (y,) = rewriter.insert(
                node, "MatMulIntegerToFloat", rows, part[0], step, part[1], middle, name=f"{name}.matmul", domain=CONTRIB
            )
            products += rewriter.insert(node, "Mul", y, row_scale, name=f"{name}.scaled")
        if split:
            rewriter.replace(split, products)
            rewriter.graph.remove(node, safe=True)
        else:
            rewriter.replace(node, products)


def _even_split(y: ir.Value) -> ir.Node | None:
    """The Split into equal parts of the last axis that alone reads `y`."""
    readers = {use.node for use in y.uses()}
    node = readers.pop() if len(readers) == 1 and not y.is_graph_output() else None
    is_even = node is not None and node.op_type == "Split" and len(node.inputs) == 1 and node.attributes["axis"].as_int() == -1
    return node if is_even else None


def _equal_parts(rewriter: Rewriter, weight: ir.Value, scale: ir.Value, count: int) -> list[tuple[ir.Value, ir.Value]]:
    """The columns of `weight` [in, out] and of its scale [out] in `count` equal parts."""
    rows, columns = constant_shape(weight)
    size = columns // count
    parts = []
    for i in range(count):
        part = slice(i * size, (i + 1) * size)

        def codes(part: slice = part) -> NDArray[Any]:
            return np.ascontiguousarray(constant_array(weight)[:, part])

        def scales(part: slice = part) -> NDArray[Any]:
            return constant_array(scale)[part]

        parts.append(
            (
                rewriter.initializer(f"{weight.name}.{i}", codes, ir.DataType.INT8, (rows, size)),
                rewriter.initializer(f"{scale.name}.{i}", scales, ir.DataType.FLOAT, (size,)),
            )
        )
    return parts
