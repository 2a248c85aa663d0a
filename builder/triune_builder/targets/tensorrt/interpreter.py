"""Computes a TensorRT network definition in NumPy: what the parser really made of a graph, before and without any engine.

It shares no code with the graph, the lowering or the reference. Every layer's result is rounded to the type that TensorRT
declares for it; between that, products and sums are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .interpreter_layers import MOVES, RULES, Layer, Values

Array = NDArray[Any]
_DTYPES: dict[str, Any] = {
    "FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16, "FP8": ml_dtypes.float8_e4m3fn, "INT4": ml_dtypes.int4,
    "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "BOOL": np.bool_,
}  # fmt: skip
_ROUNDED = frozenset({"HALF", "BF16", "FP8"})


_ROOM = 4 << 30  # bytes of weights that are kept as float32; more of them stay as they lie and are widened by every run


class NetworkError(AssertionError):
    """The network holds what the interpreter has no rule for, or contradicts its own declarations: our own fault."""


class Interpreter:
    """One network, ready to be run; what depends on weights alone is computed once and kept."""

    def __init__(
        self, trt: Any, definition: Any, weights: Mapping[str, Array], bound: Mapping[str, Array] = MappingProxyType({})
    ) -> None:
        """
        Args:
            trt: the module `tensorrt` or `tensorrt_rtx`.
            weights: arrays of those constants whose numbers the bindings do not give (bfloat16, FP8, INT4), by layer name.
            bound: inputs that are the same in every run, by name.
        """
        self._trt, self._definition = trt, definition
        inputs = [definition.get_input(i) for i in range(definition.num_inputs)]
        self.inputs = [x for x in inputs if x.name not in bound]
        for x in inputs:
            if x.name in bound:
                _check_input(x, bound[x.name])
        self.outputs = [definition.get_output(i) for i in range(definition.num_outputs)]
        layers = [Layer(trt, definition.get_layer(i)) for i in range(definition.num_layers)]
        self._steps = _in_order(layers, {x.name for x in inputs})
        self._constants: dict[str, Array] = dict(bound)
        values = _Held(self._constants)
        fixed: set[str] = set(bound)
        for layer in self._steps:
            if layer.kind == "CONSTANT":
                self._constants[layer.outputs[0]] = _constant(layer, weights)
            elif layer.kind in MOVES and layer.reads and set(layer.reads) <= fixed:
                self._constants[layer.outputs[0]] = self._compute(layer, self._constants)[0]  # a view
            elif layer.kind != "KV_CACHE_UPDATE" and layer.reads and set(layer.reads) <= fixed:
                made: dict[str, Array] = {}
                self._store(layer, self._compute(layer, values), made)
                self._constants |= {
                    t.name: made[t.name].astype(_DTYPES[t.dtype.name], copy=False) for t in layer.output_tensors
                }
            else:
                continue
            fixed |= set(layer.outputs)
        self._steps = [layer for layer in self._steps if not set(layer.outputs) <= fixed]
        needed = {name for layer in self._steps for name in layer.reads} | {x.name for x in self.outputs}
        kept = {name: array for name, array in self._constants.items() if name in needed}
        if sum(4 * array.size for array in kept.values()) <= _ROOM:
            kept = {name: _wide(array) for name, array in kept.items()}
        self._constants = kept

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for `feeds`. A cache that a layer updates is written in place, as TensorRT does.

        Raises:
            NetworkError: no rule for a layer, or a shape or type that contradicts the network's own declaration.
        """
        values: Values = _Held(self._constants)
        for x in self.inputs:
            array = feeds[x.name]
            _check_input(x, array)
            values[x.name] = array if x.name.startswith("past.") else _wide(array)
        for layer in self._steps:
            self._store(layer, self._compute(layer, values), values)
        return {x.name: values[x.name] for x in self.outputs}

    def _compute(self, layer: Layer, values: Values) -> Sequence[Array]:
        rule = RULES.get(layer.kind)
        if rule is None:
            raise NetworkError(f"no rule for the layer {layer.name} of kind {layer.kind}")
        with np.errstate(over="ignore"):
            return rule(layer, values)

    def _store(self, layer: Layer, found: Sequence[Array], values: Values) -> None:
        for tensor, array in zip(layer.output_tensors, found, strict=True):
            declared = tuple(tensor.shape)
            if not _fits(array.shape, declared):
                raise NetworkError(f"{layer.name} ({layer.kind}) gives {array.shape}; the network declares {declared}")
            kind = tensor.dtype.name
            if layer.kind == "KV_CACHE_UPDATE" or layer.kind in MOVES:
                values[tensor.name] = array
            elif kind in _ROUNDED:
                with np.errstate(over="ignore"):
                    values[tensor.name] = array.astype(_DTYPES[kind]).astype(np.float32)
            else:
                values[tensor.name] = array.astype(_DTYPES[kind], copy=False)


class _Held(dict[str, Array]):
    """The values of a run; what is not among them is a constant, widened when it is read."""

    def __init__(self, constants: Mapping[str, Array]) -> None:
        super().__init__()
        self._constants = constants

    def __missing__(self, name: str) -> Array:
        return _wide(self._constants[name])


def _check_input(x: Any, array: Array) -> None:
    if array.dtype != _DTYPES[x.dtype.name] or not _fits(array.shape, tuple(x.shape)):
        raise NetworkError(f"input {x.name} is {array.dtype} {array.shape}; the network wants {x.dtype.name} {tuple(x.shape)}")


def _in_order(layers: list[Layer], known: set[str]) -> list[Layer]:
    """The layers so that each comes after what it reads: the parser does not add them in that order."""
    known, ordered = set(known), []
    waiting = layers
    while waiting:
        later = []
        for layer in waiting:
            if all(name in known for name in layer.reads):
                ordered.append(layer)
                known |= set(layer.outputs)
            else:
                later.append(layer)
        if len(later) == len(waiting):
            raise NetworkError(f"what {later[0].name} reads is never made")
        waiting = later
    return ordered


def _constant(layer: Layer, weights: Mapping[str, Array]) -> Array:
    held = layer.raw.weights
    if isinstance(held, np.ndarray):
        array = held
    elif layer.name in weights:
        array = weights[layer.name]
    else:
        raise NetworkError(f"the numbers of the constant {layer.name} are not known")
    return array.reshape(tuple(layer.raw.shape))


def _wide(array: Array) -> Array:
    """Floats and four-bit codes as float32 and int8, in which NumPy computes; the rest as it is."""
    if array.dtype == ml_dtypes.int4:
        return array.astype(np.int8)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16", "float8_e4m3fn") else array


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(d in (-1, s) for s, d in zip(shape, declared, strict=True))
