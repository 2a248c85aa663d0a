"""Float graph -> quantized graph: replaces linears and the embedding by codes and scales, and says what it changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import BuildError
from ..graph.export import GraphBundle
from ..graph.functions import DOMAIN
from ..graph.rewrite import Rewriter
from ..graph.weights import WeightSource
from .change import Change as Change
from .experts import quantize_experts
from .policy import Precision, Scheme
from .schemes import BLOCK, SYMMETRIC, WHOLE_ZEROS, BlockCodes, RowCodes, bands, carry_blocks, quantize_blocks, quantize_rows
from .smooth import linear_name, smooth

T = TypeVar("T")


@dataclass(frozen=True)
class Quantized:
    """The new graph, what was changed, and which linears were smoothed."""

    bundle: GraphBundle
    changes: list[Change]
    smoothed: list[str] = field(default_factory=list)


def quantize(bundle: GraphBundle, precision: Precision, maxima: Mapping[str, NDArray[np.float64]] | None = None) -> Quantized:
    """Apply `precision` to the graph of `bundle`, in place.

    Args:
        maxima: see `smooth`; needed where the precision smooths.

    Raises:
        BuildError: a smoothing precision without maxima, or a weight that the scheme cannot hold.
    """
    if precision.smooth and maxima is None:
        raise BuildError(f"precision {precision.name} smooths activations and was given no calibration", "pass `maxima`")
    smoothed = smooth(bundle.model, bundle.sources, maxima or {}) if precision.smooth else []
    pass_ = _Pass(bundle)
    expected = 0
    for node in pass_.rewriter.find("Linear"):
        scheme = precision.scheme(linear_name(node))
        expected += scheme != "float"
        pass_.linear(node, scheme)
    if precision.embedding == "blocks8":
        pass_.embedding()
    changes = [*pass_.changes, *quantize_experts(pass_.rewriter, bundle.stacks, precision)]
    pass_.rewriter.finish({})
    assert len([c for c in pass_.changes if c.scheme != "embedding blocks8"]) == expected, "a linear was left out"
    if bundle.mtp is not None:
        inner = quantize(bundle.mtp, precision, maxima)
        for change in inner.changes:
            change.name = f"mtp: {change.name}"  # it has a head and an embedding of its own
        changes += inner.changes
        smoothed += inner.smoothed
    return Quantized(bundle, changes, smoothed)


class _Pass:
    """One run over one graph: the rewriter, and the activations already quantized (each distinct one once)."""

    def __init__(self, bundle: GraphBundle) -> None:
        self.rewriter = Rewriter(bundle.model)
        self.sources = bundle.sources
        self.changes: list[Change] = []
        self._latest = _Latest()
        self._rows: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def linear(self, node: ir.Node, scheme: Scheme) -> None:
        if scheme == "w8a8":
            self._linear_w8a8(node)
        elif scheme != "float":
            self._linear_blocks(node, bits=8 if scheme.startswith("blocks8") else 4, symmetric=scheme.endswith("symmetric"))

    def _linear_w8a8(self, node: ir.Node) -> None:
        x, weight = node.inputs
        assert x is not None and weight is not None and weight.name is not None
        name, source = linear_name(node), self.sources[weight.name]
        rows, columns = source.shape
        change = self._change(name, "w8a8", source, rows * columns + 4 * rows)

        def make() -> RowCodes:
            weight = source.float32()
            result = quantize_rows(weight)
            _measure(change, weight, result)
            return result

        codes = self._latest.keep(make)
        if x not in self._rows:
            quantized = self.rewriter.insert(node, "QuantizeRows", x, name=f"{x.name}.codes", outputs=2, domain=DOMAIN)
            self._rows[x] = quantized[0], quantized[1]
        transposed = self.rewriter.initializer(
            f"{name}.codes", lambda: np.ascontiguousarray(codes().codes.T), ir.DataType.INT8, (columns, rows)
        )
        scale = self.rewriter.initializer(f"{name}.scale", lambda: codes().scale, ir.DataType.FLOAT, (rows,))
        y = self.rewriter.insert(node, "LinearW8A8", *self._rows[x], transposed, scale, name=f"{name}.product", domain=DOMAIN)
        self.rewriter.replace(node, y)

    def _linear_blocks(self, node: ir.Node, *, bits: int, symmetric: bool) -> None:
        x, weight = node.inputs
        assert weight is not None and weight.name is not None
        name = linear_name(node)
        blocks = self._blocks(name, self.sources[weight.name], bits, symmetric, scheme=f"blocks{bits}")
        y = self.rewriter.insert(
            node, "LinearBlocks", x, *blocks, name=f"{name}.product", domain=DOMAIN, bits=bits, block_size=BLOCK
        )
        self.rewriter.replace(node, y)

    def embedding(self) -> None:
        """Tables that are read by Gather: eight-bit blocks, symmetric, as GGUF's Q8_0."""
        for node in self.rewriter.find("Gather", domain=""):
            table = node.inputs[0]
            if table is None or table.name not in self.sources:
                continue
            name, source = table.name, self.sources[table.name]
            codes, scale, _ = self._blocks(f"{name}.table", source, 8, symmetric=True, scheme="embedding blocks8")
            y = self.rewriter.insert(node, "EmbeddingBlocks", codes, scale, node.inputs[1], name=f"{name}.rows", domain=DOMAIN)
            self.rewriter.replace(node, y)

    def _blocks(
        self, name: str, source: WeightSource, bits: int, symmetric: bool, scheme: str
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        rows, columns = source.shape
        if columns % BLOCK:
            raise BuildError(
                f"{name} has {columns} columns, which blocks of {BLOCK} do not divide",
                "build with PRECISION=w8a8 or fp32",
            )
        change = self._change(name, scheme, source, rows * columns * bits // 8 + 4 * rows * columns // BLOCK)

        def make() -> BlockCodes:
            weight, own = source.float32(), source.blocks()
            carried = carry_blocks(own, bits) if own else None
            result = carried or quantize_blocks(weight, bits, symmetric=symmetric)
            _measure(change, weight, result)
            change.note = result.note
            return result

        codes = self._latest.keep(make)
        shape = (rows, columns // BLOCK)
        unsigned = self.rewriter.initializer(f"{name}.codes", lambda: codes().codes, ir.DataType.UINT8, (rows, columns))
        scale = self.rewriter.initializer(f"{name}.scale", lambda: codes().scale, ir.DataType.FLOAT, shape)
        offset = self.rewriter.initializer(f"{name}.offset", lambda: codes().offset, ir.DataType.FLOAT, shape)
        offset.meta[WHOLE_ZEROS] = not source.has_blocks  # of our own blocks, known without making them
        if not source.has_blocks:
            offset.meta[SYMMETRIC] = symmetric
        return unsigned, scale, offset

    def _change(self, name: str, scheme: str, source: WeightSource, bytes_after: int) -> Change:
        change = Change(name, scheme, bytes_before=4 * int(np.prod(source.shape)), bytes_after=bytes_after)
        self.changes.append(change)
        return change


class _Latest:
    """The value that was made last. A weight's parts are written one after the other: one weight in memory, not a model."""

    def __init__(self) -> None:
        self._held: tuple[object, object] = (None, None)

    def keep(self, make: Callable[[], T]) -> Callable[[], T]:
        """`make`, or what it made if nothing else was made since."""
        key = object()

        def value() -> T:
            if self._held[0] is not key:
                self._held = (None, None)  # let go of it before the next one is made
                self._held = key, make()
            return cast(T, self._held[1])

        return value


def _measure(change: Change, weight: NDArray[np.float32], codes: RowCodes | BlockCodes) -> None:
    """Set the change's error: the root mean square of the difference over that of the weight."""
    difference = size = 0.0
    for band in bands(len(weight)):
        difference += float(np.square(codes.values(band) - weight[band]).sum(dtype=np.float64))
        size += float(np.square(weight[band]).sum(dtype=np.float64))
    change.error = float(np.sqrt(difference / max(size, 1e-30)))
