"""What a classic graph is made with: the sizes of its runs, its inputs, and values that all layers share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from ....graph.export import GraphBundle
from ....graph.rewrite import Rewriter

PREFILL, DECODE = "prefill", "decode"  # new tokens of one sequence, or one of each of several


class Run:
    """One kind of run. Between its layers numbers are `[batch n, ...]`: every product with a weight is of two matrices."""

    def __init__(self, rewriter: Rewriter, kind: str, capacity: int) -> None:
        self.rewriter, self.kind, self.capacity = rewriter, kind, capacity
        self.batch, self.tokens = (1, -1) if kind == PREFILL else (-1, 1)  # in a shape; one of them varies
        ints = ir.DataType.INT32  # TensorRT 8 has no inputs of int64
        batch, tokens = ("batch", 1) if kind == DECODE else (1, "n")
        self.input_ids = ir.val("input_ids", ints, [batch, tokens])
        self.positions = ir.val("positions", ints, [batch, tokens])
        self.logit_positions = ir.val("logit_positions", ints, ["m"])  # of a prefill
        self.sequences = ir.val("sequences", ints, ["batch"])  # of a decode: 0, 1, ..., where each sequence's cache lies
        self._shared: dict[str, ir.Value] = {}

    def ints(self, *values: int) -> ir.Value:
        """A constant of whole numbers: sizes, axes."""
        return self.rewriter.constant(f"ints.{'.'.join(map(str, values))}", np.array(values, np.int64))

    def half(self, value: float) -> ir.Value:
        """A number that becomes a half."""
        return self.rewriter.constant(f"half.{value!r}", np.array(value, np.float32))

    def shared(self, name: str, make: Callable[[], ir.Value]) -> ir.Value:
        """A value that several layers read, made where the first one does."""
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]

    def close(self, bundle: GraphBundle, dtype: ir.DataType) -> ir.Value:
        """Give the graph its inputs, and the types of its cache and its logits `[rows, vocab]`, which are returned."""
        graph, own = self.rewriter.graph, [self.input_ids, self.positions]
        own.append(self.sequences if self.kind == DECODE else self.logit_positions)
        cache = [value for value in graph.inputs if (value.name or "").startswith("past.")]
        old = [value for value in graph.inputs if value not in cache]
        assert not any(value.uses() for value in old), "something still reads an input of the float graph"
        graph.inputs[:] = [*own, *cache]
        batch: int | str = 1 if self.kind == PREFILL else "batch"
        shapes = {c.name: ir.Shape([batch, c.heads, self.capacity, c.dim]) for c in bundle.cache}
        for value in (*graph.inputs, *graph.outputs):
            kind, _, name = (value.name or "").partition(".")
            if kind in ("past", "present"):
                value.type, value.shape = ir.TensorType(dtype), shapes[name]
        logits = next(value for value in graph.outputs if value.name == "logits")
        producer = logits.producer()
        assert producer is not None
        cast = ir.node("Cast", [logits], attributes={"to": ir.DataType.FLOAT}, name="logits.float")
        graph.insert_after(producer, cast)
        logits.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        cast.replace_input_with(0, logits)
        rows = "m" if self.kind == PREFILL else "batch"
        cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        cast.outputs[0].shape = ir.Shape([rows, bundle.vocab_size])
        logits.name, cast.outputs[0].name = "logits.half", "logits"
        return cast.outputs[0]
