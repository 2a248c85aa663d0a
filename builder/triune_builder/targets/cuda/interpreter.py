"""Computes a CUDA engine in NumPy: the graph as it is written and the weights where the runtime will find them.

It shares no code with the lowering or the reference. Every value is rounded to the type that its node gives it; between that,
products and sums are float32. What ONNX Runtime would refuse is refused here, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray

from .interpreter_ops import RULES, Array, GraphError, Node, rounded
from .interpreter_paged import paged_attention, rotary_qkv

_DTYPES: dict[str, Any] = {
    "float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float8e4m3fn": ml_dtypes.float8_e4m3fn,
    "uint8": np.uint8, "int32": np.int32, "int64": np.int64, "bool": np.bool_,
}  # fmt: skip
_PAGED = {"PagedAttention": paged_attention, "RotaryQKV": rotary_qkv}
_HALVES = frozenset({"float16", "bfloat16"})
_ROOM = 4 << 30  # bytes of weights that are kept as float32; more of them are widened by every run
_CACHE = "past."


class Weight(Protocol):
    """Where a weight lies, as the runtime is told it."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def file(self) -> str: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...


class Interpreter:
    """One graph, ready to be run."""

    def __init__(self, graph: Path, weights: Sequence[Weight]) -> None:
        """
        Raises:
            GraphError: the graph and the list of its weights contradict each other.
        """
        model = onnx.load(str(graph), load_external_data=False)
        self._inputs = {value.name: value.type.tensor_type for value in model.graph.input}
        self._outputs = {value.name: _kind(value.type.tensor_type.elem_type) for value in model.graph.output}
        self._constants, self._kinds = _constants(model, graph.parent, weights)
        keeps = sum(4 * array.size for array in self._constants.values()) <= _ROOM
        if keeps:
            self._constants = {name: _wide(array) for name, array in self._constants.items()}
        self._nodes = [
            Node(
                kind=node.op_type,
                name=node.name or node.output[0],
                attributes={a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                keeps=keeps,
            )
            for node in model.graph.node
        ]

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset(self._inputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for `feeds`. Memory of the cache is written in place.

        Raises:
            GraphError: no rule for a node; or inputs, shapes or types that ONNX Runtime would not take.
        """
        values: dict[str, Array] = {}
        kinds = dict(self._kinds)
        if feeds.keys() != self._inputs.keys():
            raise GraphError(f"inputs are {sorted(feeds)}; the graph has {sorted(self._inputs)}")
        for name, declared in self._inputs.items():
            array, kind = feeds[name], _kind(declared.elem_type)
            if array.dtype != _DTYPES[kind] or not _fits(array.shape, declared):
                raise GraphError(f"input {name} is {array.dtype} {array.shape}; the graph wants another")
            values[name], kinds[name] = (array if name.startswith(_CACHE) else _wide(array)), kind
        for node in self._nodes:
            self._step(node, values, kinds)
        for name, kind in self._outputs.items():
            if kinds[name] != kind:
                raise GraphError(f"output {name} is {kinds[name]}; the graph says {kind}")
        return {name: values[name] for name in self._outputs}

    def _step(self, node: Node, values: dict[str, Array], kinds: dict[str, str]) -> None:
        rule = _PAGED.get(node.kind) or RULES.get(node.kind)
        if rule is None:
            raise GraphError(f"no rule for the node {node.name} of kind {node.kind}")
        read = [None if not name else values[name] if name in values else _wide(self._constants[name]) for name in node.inputs]
        node.kinds = tuple(kinds.get(name, "") for name in node.inputs)
        kind = node.float_kind()
        with np.errstate(over="ignore", invalid="ignore"):
            found = rule(node, read)
        for name, array in zip(node.outputs, found, strict=False):
            if name and array is not None:
                is_float = array.dtype == np.float32
                values[name] = rounded(array, kind) if is_float and kind in _HALVES else array
                kinds[name] = kind if is_float else array.dtype.name


def _constants(model: Any, folder: Path, weights: Sequence[Weight]) -> tuple[dict[str, Array], dict[str, str]]:
    places = {weight.name: weight for weight in weights}
    files: dict[str, NDArray[np.uint8]] = {}
    arrays: dict[str, Array] = {}
    kinds: dict[str, str] = {}
    for tensor in model.graph.initializer:
        kind, shape = _kind(tensor.data_type), tuple(tensor.dims)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = places.pop(tensor.name, None)
            if place is None or (place.dtype, place.shape) != (kind, shape):
                raise GraphError(f"the list of weights has {tensor.name} as {place}; the graph has {kind} {shape}")
            file = files.setdefault(place.file, np.memmap(folder / place.file, np.uint8, "r"))
            stored = file[place.offset : place.offset + place.length]
            arrays[tensor.name] = stored.view(_DTYPES[kind]).reshape(shape)
        else:
            arrays[tensor.name] = onnx.numpy_helper.to_array(tensor).astype(_DTYPES[kind], copy=False)
        kinds[tensor.name] = kind
    if places:
        raise GraphError(f"the list of weights has {', '.join(sorted(places))}; the graph reads no such file")
    return arrays, kinds


def _kind(data_type: int) -> str:
    return str(onnx.TensorProto.DataType.Name(data_type)).lower()


def _wide(array: Array) -> Array:
    """Floats as float32, in which NumPy computes; the rest as it is."""
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16", "float8_e4m3fn") else np.asarray(array)


def _fits(shape: tuple[int, ...], declared: Any) -> bool:
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
    return len(sizes) == len(shape) and all(size in (None, given) for size, given in zip(sizes, shape, strict=True))
