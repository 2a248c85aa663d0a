"""A tape for the bodies of ONNX local functions: nodes, and constants, since a body cannot hold initializers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

DOMAIN = "triune"
_OPSET = 23


class Body:
    """Records the nodes of one function."""

    def __init__(self, *inputs: str) -> None:
        self.inputs = [ir.val(name) for name in inputs]
        self.tape = ir.tape.Tape()

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        return self.tape.op(kind, inputs, attributes=attributes or None)  # type: ignore[arg-type]  # the tape wants its own types

    def ops(self, kind: str, *inputs: ir.Value | None, outputs: int, **attributes: object) -> Sequence[ir.Value]:
        return self.tape.op_multi_out(kind, inputs, attributes or None, num_outputs=outputs)  # type: ignore[arg-type]  # as above

    def ints(self, *values: int) -> ir.Value:
        return self.tape.op("Constant", [], {"value": ir.tensor(np.array(values, np.int64))})

    def scalar(self, value: float, dtype: type = np.float32) -> ir.Value:
        return self.tape.op("Constant", [], {"value": ir.tensor(np.array(value, dtype))})

    def attribute(self, name: str, kind: ir.AttributeType) -> ir.Value:
        """The function's own attribute as a scalar."""
        value = {ir.AttributeType.INT: "value_int", ir.AttributeType.FLOAT: "value_float"}[kind]
        return self.op("Constant", **{value: ir.RefAttr(value, name, kind)})

    def function(self, name: str, outputs: Sequence[ir.Value], attributes: Mapping[str, ir.AttributeType] = {}) -> ir.Function:
        graph = ir.Graph(self.inputs, list(outputs), nodes=self.tape.nodes, opset_imports={"": _OPSET}, name=name)
        return ir.Function(DOMAIN, name, graph=graph, attributes=[ir.Attr(n, t, None) for n, t in attributes.items()])
