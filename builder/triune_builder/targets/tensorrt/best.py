"""The highest logit of each row and its token, as outputs beside the logits: greedy decoding then downloads no logits.

No ArgMax or TopK: TensorRT has one layer for both and does not say which of equal numbers it takes, nor what it makes of NaN.
Halves tie often, and kernels for another batch size may choose another of them: an answer would depend on its company. Here
every layer has one right result: NaN counts as infinity, the token is the lowest of those that equal the maximum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import Rewriter
from ..halves import keep_float

TOKENS, LOGITS = "best_tokens", "best_logits"


def add_best(rewriter: Rewriter, logits: ir.Value, vocab_size: int) -> None:
    """Give the graph the outputs `best_tokens` int64 and `best_logits` float32 [batch, m] of `logits` [batch, m, vocab_size].

    A row's best logit is finite exactly where its logits have no NaN and a largest one that is finite.
    """
    graph = rewriter.graph

    def op(kind: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
        node = ir.node(kind, inputs, attributes=attributes, name=name)
        node.outputs[0].name = name
        graph.append(node)
        return node.outputs[0]

    vocabulary = rewriter.constant("best.vocabulary", np.arange(vocab_size, dtype=np.int32))
    nobody = rewriter.constant("best.nobody", np.array(vocab_size, np.int32))
    infinity = keep_float(rewriter.constant("best.infinity", np.array(np.inf, np.float32)))
    axis = rewriter.constant("best.axis", np.array([-1], np.int64))
    numbers = op("Where", op("IsNaN", logits, name="best.nan"), infinity, logits, name="best.numbers")
    highest = op("ReduceMax", numbers, axis, name="best.highest", keepdims=1)
    candidates = op("Where", op("Equal", numbers, highest, name="best.equal"), vocabulary, nobody, name="best.candidates")
    lowest = op("ReduceMin", candidates, axis, name="best.lowest", keepdims=0)
    assert logits.shape is not None
    for value, dtype in (
        (op("Cast", lowest, name=TOKENS, to=ir.DataType.INT64), ir.DataType.INT64),
        (op("Squeeze", highest, axis, name=LOGITS), ir.DataType.FLOAT),
    ):
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(logits.shape[:2])
        graph.outputs.append(value)
