"""The numbers of values that a graph holds as constants."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray


def array_of(value: ir.Value) -> NDArray[Any]:
    """The numbers; made now, if they are made when asked for."""
    assert value.const_value is not None
    return value.const_value.numpy()


def static_shape(value: ir.Value) -> tuple[int, ...]:
    """Their shape, without making them."""
    assert value.const_value is not None
    return tuple(value.const_value.shape.numpy())
