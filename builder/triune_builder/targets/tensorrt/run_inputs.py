"""The inputs of a TensorRT engine that say which tokens a run computes, and the final types of the others."""

from __future__ import annotations

import onnx_ir as ir

from ...graph.export import GraphBundle
from ...graph.rewrite import Rewriter


class RunInputs:
    """What says which tokens a run computes: inputs that replace `total_lengths`."""

    def __init__(self, rewriter: Rewriter, size: int) -> None:
        self.positions = ir.val("positions", ir.DataType.INT64, ["batch", "n"])
        self.starts = ir.val("starts", ir.DataType.INT64, ["batch"])
        self.capacity = size
        self._graph = rewriter.graph

    def close(self, bundle: GraphBundle, half: ir.DataType) -> ir.Value:
        """Put the inputs in place, and give the cache's inputs and outputs and the logits, returned, their final types."""
        graph = self._graph
        where = next(i for i, value in enumerate(graph.inputs) if value.name == "total_lengths")
        assert not graph.inputs[where].uses(), "something still reads total_lengths"
        graph.inputs[where : where + 1] = [self.positions, self.starts]
        shapes = {c.name: ir.Shape(["batch", c.heads, self.capacity, c.dim]) for c in bundle.cache}
        for value in (*graph.inputs, *graph.outputs):
            kind, _, name = (value.name or "").partition(".")
            if kind in ("past", "present"):
                value.type, value.shape = ir.TensorType(half), shapes[name]
        logits = next(value for value in graph.outputs if value.name == "logits")
        producer = logits.producer()
        assert producer is not None
        cast = ir.node("Cast", [logits], attributes={"to": ir.DataType.FLOAT}, name="logits.float")
        graph.insert_after(producer, cast)
        logits.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        cast.replace_input_with(0, logits)
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), logits.shape
        logits.name, cast.outputs[0].name = "logits.half", "logits"
        return cast.outputs[0]
