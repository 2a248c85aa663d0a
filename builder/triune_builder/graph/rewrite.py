"""Helpers for graph -> graph passes: new initializers, nodes in place of nodes, and sweeping what nothing uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from .functions import DOMAIN, FUNCTIONS
from .weights import StackedTensor


class Rewriter:
    """Edits one graph in place; new nodes go before a given one, in the order they are made."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.graph = model.graph

    def find(self, kind: str, domain: str = DOMAIN) -> Iterator[ir.Node]:
        """Nodes of one kind, in graph order; the graph may be edited while iterating."""
        return iter([node for node in self.graph if node.op_type == kind and node.domain == domain])

    def initializer(self, name: str, make: Callable[[], NDArray[Any]], dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A lazy initializer: `make` runs when its bytes are written. An existing one of that name is returned."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        tensor = ir.LazyTensor(lambda: ir.tensor(make(), name=name), dtype, ir.Shape(shape), name=name)
        value = ir.val(name, dtype, shape, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def stacked_initializer(
        self, name: str, make: Callable[[int], NDArray[Any]], dtype: ir.DataType, shape: Sequence[int], *, flat: bool = False
    ) -> ir.Value:
        """A lazy initializer that is made and written entry by entry along its first axis; for `flat` see `StackedTensor`."""
        if name not in self.graph.initializers:
            tensor = StackedTensor(make, dtype, shape, name, flat=flat)
            value = ir.val(name, dtype, tensor.shape, const_value=tensor)
            self.graph.register_initializer(value)
        return self.graph.initializers[name]

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A small eager initializer, shared by name."""
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def insert(
        self,
        before: ir.Node,
        kind: str,
        *inputs: ir.Value | None,
        name: str,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """A new node before `before`; its outputs are named after `name`."""
        node = ir.node(kind, inputs, attributes=attributes, num_outputs=outputs, domain=domain, name=name)
        for i, value in enumerate(node.outputs):
            value.name = name if i == 0 else f"{name}.{i}"
        self.graph.insert_before(before, node)
        return node.outputs

    def replace(self, node: ir.Node, outputs: Sequence[ir.Value | None]) -> None:
        """Let `outputs` stand for the outputs of `node`, and drop it; a None must be unused."""
        for i, (old, new) in enumerate(zip(node.outputs, outputs, strict=True)):
            if new is None:
                assert not old.uses(), f"output {i} of {node.name or node.op_type} is still used"
                continue
            new.type, new.shape = new.type or old.type, new.shape or old.shape
            name = old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            if new.is_graph_output():
                new.name, old.name = name, f"{name}.replaced"
        self.graph.remove(node, safe=True)

    def finish(self, opsets: dict[str, int]) -> None:
        """Sweep unused nodes, initializers and functions; declare the domains in use."""
        for node in reversed(list(self.graph)):
            if not any(o.uses() or o.is_graph_output() for o in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses():
                del self.graph.initializers[name]
        used = {node.op_type for node in self.graph if node.domain == DOMAIN}
        self.model.functions.clear()
        for kind in sorted(used):
            function = FUNCTIONS[kind]()
            self.model.functions[function.identifier()] = function
        self.graph.opset_imports.update(opsets)


def constant_array(value: ir.Value) -> NDArray[Any]:
    """The numbers of an initializer; a lazy one makes them."""
    assert value.const_value is not None, f"{value.name} is no initializer"
    return value.const_value.numpy()


def constant_shape(value: ir.Value) -> tuple[int, ...]:
    """The shape of an initializer; makes no numbers."""
    assert value.const_value is not None, f"{value.name} is no initializer"
    return tuple(value.const_value.shape.numpy())


class Place:
    """Where new nodes go: before `node`, named after its first output."""

    def __init__(self, rewriter: Rewriter, node: ir.Node) -> None:
        self._rewriter, self._node, self._name = rewriter, node, node.outputs[0].name

    def op(self, kind: str, *inputs: ir.Value | None, part: str, **attributes: Any) -> ir.Value:
        """One node with one output."""
        return self.ops(kind, *inputs, part=part, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: ir.Value | None, part: str, outputs: int, **attributes: Any) -> Sequence[ir.Value]:
        """One node with several outputs."""
        return self._rewriter.insert(self._node, kind, *inputs, name=f"{self._name}.{part}", outputs=outputs, **attributes)
