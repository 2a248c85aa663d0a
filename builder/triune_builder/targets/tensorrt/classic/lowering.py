"""Graph -> graph for TensorRT 8.6 to 10: ops of opset 16 in the form that those versions were seen to build and to run rightly.

docs/tensorrt.md says what was seen. What is float32 here (norms, softmax, routers, logits) may be computed in halves by the
engine, which chooses: so no number on the way is larger than a half holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ....errors import BuildError
from ....graph.export import GraphBundle
from ....graph.functions import DOMAIN
from ....graph.rewrite import Rewriter
from ...halves import HALVES, keep_float, to_halves
from ..gpus import HEAD_UNIT
from .attention import lower_attention, lower_latent
from .layers import lower_experts, lower_linears, lower_plain
from .run import Run

OPSET, IR_VERSION = 16, 8
DTYPE = "float16"  # of the arithmetic and the cache: TensorRT 8 has no bfloat16
_FUNCTIONS = {"Linear", "Attention", "LatentAttention", "Route", "Experts"}
_DIGIT, _NOBODY = 256, 32_768.0  # tokens are counted in digits to this base; what no digit is. Halves hold both
_SLOT_UNIT = 16  # positions: with heads of a multiple of 8 halves, slots then begin at multiples of 256 bytes


def capacity(max_length: int) -> int:
    """Positions of a slot for sequences of up to `max_length` tokens: one more, the last, is written by what fills up a run."""
    return max_length + 1 + -(max_length + 1) % _SLOT_UNIT


def lower(bundle: GraphBundle, kind: str, *, max_length: int) -> tuple[GraphBundle, frozenset[str]]:
    """Rewrite the float graph of `bundle` in place; docs/tensorrt.md lists the inputs and outputs that it then has.

    Args:
        kind: of the runs, `run.PREFILL` or `run.DECODE`.

    Returns:
        The bundle, and the names of those of its initializers that are the checkpoint's weights.

    Raises:
        BuildError: a size or a function that this form does not have.
    """
    for tensor in bundle.cache:
        if tensor.dim % HEAD_UNIT:
            raise BuildError(
                f"the cache tensor {tensor.name} has {tensor.dim} numbers a head; TensorRT's slots take multiples of 8",
                "this model cannot be built for this target",
            )
    rewriter = Rewriter(bundle.model)
    if unknown := sorted({node.op_type for node in rewriter.graph if node.domain == DOMAIN} - _FUNCTIONS):
        raise BuildError(
            f"no rule lowers {', '.join(unknown)} for TensorRT 8.6 to 10",
            f"these versions take {DTYPE} alone; TensorRT 11 and TensorRT-RTX take quantized weights",
        )
    run = Run(rewriter, kind, capacity(max_length))
    lower_plain(run)
    lower_attention(run)
    lower_latent(run)
    lower_linears(run)
    lower_experts(run)
    rewriter.finish({"": OPSET})
    rewriter.graph.opset_imports.pop(DOMAIN, None)
    add_best(rewriter, run.close(bundle, HALVES[DTYPE]), bundle.vocab_size)
    weights = frozenset(
        name for name, value in rewriter.graph.initializers.items() if not isinstance(value.const_value, ir.Tensor)
    )
    to_halves(bundle.model, DTYPE)
    bundle.model.ir_version = IR_VERSION
    cache = tuple(dataclasses.replace(c, dtype=DTYPE, window=None, outputs=1) for c in bundle.cache)
    return dataclasses.replace(bundle, cache=cache, mtp=None), weights


def add_best(rewriter: Rewriter, logits: ir.Value, vocab_size: int) -> None:
    """Give the graph the outputs `best_tokens` int32 and `best_logits` float32 [rows]; see `best.py` of the other form."""
    graph = rewriter.graph

    def op(kind: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
        node = ir.node(kind, inputs, attributes=attributes, name=name)
        node.outputs[0].name = name
        graph.append(node)
        return node.outputs[0]

    def float32(name: str, array: NDArray[Any]) -> ir.Value:
        return keep_float(rewriter.constant(f"best.{name}", array.astype(np.float32)))

    # As floats, since TensorRT 8's parser is not said to reduce integers; in two digits, since an engine may choose halves.
    assert vocab_size < 2048 * _DIGIT, f"{vocab_size} tokens"
    ids = np.arange(vocab_size).reshape(1, -1)
    high, low = float32("high_digits", ids // _DIGIT), float32("low_digits", ids % _DIGIT)
    nobody, infinity = float32("nobody", np.array(_NOBODY)), float32("infinity", np.array(np.inf))
    axis = rewriter.constant("best.axis", np.array([-1], np.int64))
    numbers = op("Where", op("IsNaN", logits, name="best.nan"), infinity, logits, name="best.numbers")
    highest = op("ReduceMax", numbers, name="best.highest", axes=[-1], keepdims=1)
    equal = op("Equal", numbers, highest, name="best.equal")
    first = op("ReduceMin", op("Where", equal, high, nobody, name="best.highs"), name="best.high", axes=[-1], keepdims=1)
    first_too = op("And", equal, op("Equal", high, first, name="best.same"), name="best.candidates")
    second = op("ReduceMin", op("Where", first_too, low, nobody, name="best.lows"), name="best.low", axes=[-1], keepdims=0)
    whole = op("Cast", op("Squeeze", first, axis, name="best.high_digit"), name="best.high_integer", to=ir.DataType.INT32)
    hundreds = op("Mul", whole, rewriter.constant("best.digit", np.array(_DIGIT, np.int32)), name="best.hundreds")
    ones = op("Cast", second, name="best.low_integer", to=ir.DataType.INT32)
    assert logits.shape is not None
    for value, dtype in (
        (op("Add", hundreds, ones, name="best_tokens"), ir.DataType.INT32),
        (op("Squeeze", highest, axis, name="best_logits"), ir.DataType.FLOAT),
    ):
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(logits.shape[:1])
        graph.outputs.append(value)
