"""Moves the difficulty of quantizing activations into the weights (SmoothQuant, Xiao et al. 2023).

A linear layer's input channel j is divided by s_j = max|x_j|^a / max|w_j|^(1-a) and its weight's column multiplied by it. The
division is folded into whatever made the input: a normalization's weight, or the rows of the up projection. The graph
computes the same function and has the same nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..graph.rewrite import Rewriter
from ..graph.weights import WeightSource
from .policy import HEAD

_SMOOTHED = ".smoothed"
STRENGTH = 0.6  # a: how much of the range goes into the weights; docs/quantization.md
_FACTOR_BITS = 3  # of a factor: it is a rule of thumb, and more would let in last bits of sums that processors do not share


@dataclass(frozen=True)
class ScaledPart:
    """A weight times a factor along its first or last axis; its values no longer lie on the checkpoint's blocks."""

    source: WeightSource
    factor: NDArray[np.float32]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.shape

    def float32(self) -> NDArray[np.float32]:
        weight = self.source.float32()  # a new array
        shape = [1] * weight.ndim
        shape[self.axis] = -1
        weight *= self.factor.reshape(shape)
        return weight

    def blocks(self) -> None:
        return None


def smooth(
    model: ir.Model,
    sources: dict[str, WeightSource],
    maxima: Mapping[str, NDArray[np.float64]],
    wanted: Callable[[str], bool] = lambda name: True,
) -> list[str]:
    """Smooth every wanted linear whose input can be rescaled at its origin; returns their weights' names. Edits `sources`.

    Args:
        maxima: name of a linear's weight in the checkpoint -> max |x_j| of its input over a calibration text, float64 [in];
            "lm_head.weight" for the head, tied or not.
        wanted: whether the linear of that name is to be smoothed.
    """
    rewriter = Rewriter(model)
    done = []
    for node in rewriter.find("Linear"):
        x, weight = node.inputs
        assert x is not None and weight is not None and weight.name is not None
        name = linear_name(node)
        origin = _origin(x)
        observed = observed_name(sources, name)
        if not wanted(name) or observed not in maxima or origin is None or len(x.uses()) != 1:
            continue
        numbers = sources[weight.name].float32()
        tallest = np.maximum(np.maximum(numbers.max(axis=0), -numbers.min(axis=0)), 1e-8).astype(np.float64)
        del numbers  # may be gigabytes
        factor = np.maximum(maxima[observed], 1e-8) ** STRENGTH / tallest ** (1 - STRENGTH)
        factor = _rounded(np.clip(factor / np.exp(np.log(factor).mean()), 1e-2, 1e2)).astype(np.float32)
        _scale(rewriter, sources, node, 1, name, factor, axis=-1)
        producer, index, rows = origin
        target = producer.inputs[index]
        assert target is not None and target.name is not None
        inverse = np.ones(sources[target.name].shape[0], np.float32)
        inverse[rows] = 1 / factor
        _scale(rewriter, sources, producer, index, target.name, inverse, axis=0)
        done.append(name)
    return done


def linear_name(node: ir.Node) -> str:
    """The weight's name as a linear; a tied head reads the embedding table but is a linear of its own."""
    weight = node.inputs[1]
    assert weight is not None and weight.name is not None
    name = weight.name.split(_SMOOTHED)[0]
    return HEAD if name.endswith("embed_tokens.weight") else name


def observed_name(sources: Mapping[str, WeightSource], name: str) -> str:
    """The checkpoint's name under which the input of the linear `name` is observed: parts of one product share it."""
    return sources[name].part_names[0] if name in sources else name


def _rounded(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """To `_FACTOR_BITS` bits."""
    mantissas, exponents = np.frexp(numbers)
    return np.ldexp(np.rint(mantissas * 2.0**_FACTOR_BITS), exponents - _FACTOR_BITS)


def _scale(
    rewriter: Rewriter,
    sources: dict[str, WeightSource],
    node: ir.Node,
    index: int,
    name: str,
    factor: NDArray[np.float32],
    axis: int,
) -> None:
    """Let `node` read its weight times `factor`. Other readers of the weight keep the plain one."""
    old = node.inputs[index]
    assert old is not None and old.name is not None
    source = WeightSource(name, (ScaledPart(sources[old.name], factor, axis),))
    key = f"{name}{_SMOOTHED}"
    sources[key] = source
    value = rewriter.initializer(key, source.float32, ir.DataType.FLOAT, source.shape)
    node.replace_input_with(index, value)


def _origin(x: ir.Value) -> tuple[ir.Node, int, slice] | None:
    """(node, weight input, its rows) that scale the channels of x one by one, or None."""
    node = x.producer()
    if node is None:
        return None
    if node.op_type == "RMSNormalization":
        return node, 1, slice(None)
    if node.op_type == "Mul" and node.inputs[1] is not None:  # silu(gate) * up: up's rows
        split = node.inputs[1].producer()
        if split is not None and split.op_type == "Split" and node.inputs[1].index() == 1:
            both = split.inputs[0].producer() if split.inputs[0] is not None else None
            if both is not None and both.op_type == "Linear" and both.inputs[1] is not None:
                rows = both.inputs[1].shape[0] if both.inputs[1].shape is not None else None
                assert isinstance(rows, int)
                return both, 1, slice(rows // 2, rows)
    return None
