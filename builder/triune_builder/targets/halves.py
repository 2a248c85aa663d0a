"""A float32 graph -> the same graph in halves, strongly typed: every weight and activation but those marked to stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import BuildError, option
from ..graph.weights import StackedTensor

HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
NUMPY: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_KEPT = "stays_float32"


def keep_float(value: ir.Value) -> ir.Value:
    """Mark an initializer as float32: what reads it computes in float32."""
    value.meta[_KEPT] = True
    return value


def to_halves(model: ir.Model, dtype: str, found: Callable[[str], ir.TensorProtocol | None] = lambda name: None) -> None:
    """Make the float32 initializers of `model` halves when their bytes are written, in place.

    Values between nodes lose their types: they follow from the inputs'.

    Args:
        found: the initializer of that name where it lies in this form already; None: it is to be made.

    Raises:
        BuildError: when a weight is written that float16 cannot hold.
    """
    graph = model.graph
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or value.meta.get(_KEPT):
            continue
        name = value.name or ""
        if (there := found(name)) is not None:
            assert there.dtype == HALVES[dtype], f"{name} lies in another form"
            value.const_value = there
        elif isinstance(tensor, StackedTensor):
            value.const_value = _stack(tensor, name, dtype)
        else:
            value.const_value = ir.LazyTensor(
                _maker(tensor, name, dtype), HALVES[dtype], ir.Shape(tensor.shape.numpy()), name=name
            )
        value.type = ir.TensorType(HALVES[dtype])
    outputs = set(graph.outputs)
    for node in graph:
        for value in node.outputs:
            if value not in outputs:
                value.type = value.shape = None


def _maker(tensor: ir.TensorProtocol, name: str, dtype: str) -> Callable[[], ir.TensorProtocol]:
    return lambda: ir.tensor(_half(tensor.numpy(), name, dtype), dtype=HALVES[dtype], name=name)


def _stack(tensor: StackedTensor, name: str, dtype: str) -> StackedTensor:
    return tensor.changed(lambda entry: _half(entry, name, dtype), HALVES[dtype])


def _half(array: NDArray[Any], name: str, dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        half = array.astype(NUMPY[dtype])
    if not np.isfinite(half.astype(np.float32)).all():
        raise BuildError(
            f"{name} has numbers up to {np.abs(array).max():.4g}, too large for {dtype}",
            f"choose {option('precision', 'bf16')}",
        )
    return half
