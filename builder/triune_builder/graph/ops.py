"""The op vocabulary: everything an architecture may say. Knows names and lazy weights; no precision, no target, no file.

An op takes and returns `ir.Value`. Weight names come from a stack of scopes, so they are the checkpoint's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with NumPy for lazy tensors)
import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..errors import BuildError
from .functions import DOMAIN, FUNCTIONS
from .weights import Source, StackedTensor, StackSource, WeightSource, fuse

OPSET = 23
IR_VERSION = 11


class Graph:
    """Records nodes while an architecture runs."""

    def __init__(self, weights: Mapping[str, Source]) -> None:
        self._weights = weights
        self._tape = ir.tape.Tape()
        self._scope: list[str] = []
        self._constants: dict[str, ir.Value] = {}
        self._used_functions: set[str] = set()
        self.sources: dict[str, WeightSource] = {}  # initializer name -> where its numbers come from
        self.stacks: dict[str, StackSource] = {}  # the same of weights stacked for experts
        self.read: set[str] = set()  # checkpoint names some initializer is made of
        self.outputs: dict[str, ir.Value] = {}  # that an architecture has besides logits and cache

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of everything made inside with `name.`."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def path(self, leaf: str = "") -> str:
        return ".".join([*self._scope, leaf] if leaf else self._scope)

    def has(self, leaf: str) -> bool:
        """Whether the checkpoint holds a weight of that name in the present scope."""
        return self.path(leaf) in self._weights

    def weight(self, *leaves: str, fused_as: str | None = None) -> ir.Value:
        """The weight `leaves[0]`, or several stacked along their first axis under the name `fused_as`."""
        names = self._found(leaves)
        name = self.path(fused_as) if fused_as else names[0]
        if name not in self._constants:
            source = fuse(name, self._weights, names)
            self.sources[name] = source
            self.read.update(names)
            tensor = ir.LazyTensor(
                lambda: ir.tensor(source.float32(), name=name), ir.DataType.FLOAT, ir.Shape(source.shape), name=name
            )
            self._constants[name] = self._tape.initializer(tensor, name=name)
        return self._constants[name]

    def stacked_weights(self, experts: Sequence[str], *leaves: str, name: str) -> ir.Value:
        """The weights `leaves` of each of `experts`, stacked as in `weight`, and these stacked along a new first axis."""
        path = self.path(name)
        if path not in self._constants:
            names = [self._found([f"{expert}.{leaf}" for leaf in leaves]) for expert in experts]
            sources = tuple(fuse(path, self._weights, group) for group in names)
            if len({s.shape for s in sources}) != 1:
                raise BuildError(
                    f"the experts of {path} have shapes {', '.join(sorted({str(s.shape) for s in sources}))}", "all must agree"
                )
            stack = self.stacks[path] = StackSource(path, sources)
            self.read.update(name for group in names for name in group)
            tensor = StackedTensor(lambda i: sources[i].float32(), ir.DataType.FLOAT, stack.shape, path)
            self._constants[path] = self._tape.initializer(tensor, name=path)
        return self._constants[path]

    def derived_weight(
        self, leaf: str, name: str, shape: Sequence[int], make: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> ir.Value:
        """What `make` makes of the weight `leaf`, when its bytes are written: a weight of `shape` named `name`."""
        (source_name,) = self._found([leaf])
        path, source = self.path(name), self._weights[source_name]
        if path not in self._constants:
            self.read.add(source_name)
            tensor = ir.LazyTensor(
                lambda: ir.tensor(np.ascontiguousarray(make(source.float32())), name=path),
                ir.DataType.FLOAT,
                ir.Shape(shape),
                name=path,
            )
            self._constants[path] = self._tape.initializer(tensor, name=path)
        return self._constants[path]

    def leave(self, prefix: str) -> None:
        """Let the checkpoint's weights below `prefix` be: they are understood, and not part of this graph."""
        self.read.update(name for name in self._weights if name.startswith(f"{self.path(prefix)}."))

    def weight_shape(self, leaf: str) -> tuple[int, ...]:
        """The shape of a weight in the present scope."""
        return tuple(self._weights[self._found([leaf])[0]].shape)

    def _found(self, leaves: Sequence[str]) -> list[str]:
        """The whole names of weights that must be there."""
        names = [self.path(leaf) for leaf in leaves]
        for name in names:
            if name not in self._weights:
                raise BuildError(
                    f"the checkpoint has no weight {name}", "is the checkpoint complete, and of this architecture?"
                )
        return names

    def constant(self, value: ArrayLike, dtype: DTypeLike = np.int64, name: str | None = None) -> ir.Value:
        """A constant tensor; equal unnamed ones are one."""
        array = np.asarray(value, dtype)
        key = name or f"const.{array.dtype}.{array.tolist()}"
        if key not in self._constants:
            self._constants[key] = self._tape.initializer(ir.tensor(array, name=key), name=key)
        return self._constants[key]

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """One node with one output."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: ir.Value | None, outputs: int, domain: str = "", **attributes: Any) -> Sequence[ir.Value]:
        """One node with several outputs."""
        if domain == DOMAIN:
            self._used_functions.add(kind)
        values = self._tape.op_multi_out(kind, inputs, attributes=attributes, num_outputs=outputs, domain=domain)
        for i, value in enumerate(values):
            value.name = f"{self.path(kind)}.{len(self._tape.nodes)}" + (f".{i}" if outputs > 1 else "")
        return values

    def block(self, kind: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> Sequence[ir.Value]:
        """A node of our own domain: an ONNX local function whose body is the plain definition (see functions.py)."""
        return self.ops(kind, *inputs, outputs=outputs, domain=DOMAIN, **attributes)

    def model(self, inputs: Sequence[ir.Value], outputs: Mapping[str, ir.Value]) -> ir.Model:
        """Close the graph."""
        named = dict(outputs) | self.outputs
        for name, value in named.items():
            value.name = name
        graph = ir.Graph(
            inputs,
            list(named.values()),
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET, DOMAIN: 1},
            name="triune",
        )
        functions = [FUNCTIONS[name]() for name in sorted(self._used_functions)]
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="triune", functions=functions)


def linear(g: Graph, x: ir.Value, *names: str, fused_as: str | None = None) -> ir.Value:
    """x [..., in] times weight [out, in] transposed, plus bias if the checkpoint has one; several names are fused."""
    fused = fused_as or names[0]
    weight = g.weight(*[f"{n}.weight" for n in names], fused_as=f"{fused}.weight")
    with g.scope(fused):
        y = g.block("Linear", x, weight)[0]
    if all(g.has(f"{n}.bias") for n in names):
        y = g.op("Add", y, g.weight(*[f"{n}.bias" for n in names], fused_as=f"{fused}.bias"))
    elif any(g.has(f"{n}.bias") for n in names):
        raise BuildError(f"only some of {', '.join(names)} in {g.path()} have a bias", "all or none of them must")
    return y


def rms_norm(g: Graph, x: ir.Value, name: str, epsilon: float) -> ir.Value:
    """Root mean square normalization over the last axis (Zhang and Sennrich 2019)."""
    with g.scope(name):
        return g.op("RMSNormalization", x, g.weight("weight"), axis=-1, epsilon=epsilon)


def silu(g: Graph, x: ir.Value) -> ir.Value:
    return g.op("Mul", x, g.op("Sigmoid", x))
