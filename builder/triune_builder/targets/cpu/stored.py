"""Graph -> graph for ONNX Runtime: float weights as the checkpoint's own numbers, cast when the engine is loaded.

What lies in a safetensors file in a form that the precision allows is read there: external data that points into the file.
Casts and joins have constant inputs, so ONNX Runtime computes them once, when it loads, and keeps one float32 copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...checkpoint import Fp8Tensor, Tensor
from ...errors import BuildError, option
from ...graph.export import GraphBundle
from ...graph.rewrite import Rewriter
from ...graph.weights import Source, WeightSource
from ...quantize.policy import Stored

_DTYPES = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "BF16": ir.DataType.BFLOAT16,
    "F8_E4M3": ir.DataType.FLOAT8E4M3FN,
}
_KEPT: dict[Stored, frozenset[str]] = {  # the forms in which a matrix may stay
    "BF16": frozenset({"BF16"}),
    "F16": frozenset({"F16"}),
    "F8_E4M3": frozenset({"F32", "F16", "BF16"}),
}
_HALVES: dict[Stored, Any] = {"BF16": ml_dtypes.bfloat16, "F16": np.float16}
_INTERLEAVED = ".interleaved"  # a stack whose experts' first and second halves of rows take turns


def store(bundle: GraphBundle, form: Stored) -> GraphBundle:
    """Let the lowered graph of `bundle` read its weights in the form `form`, in place.

    Matrices take that form: as they lie in the checkpoint, or converted. FP8 keeps every form that the checkpoint has, and
    FP8 matrices as codes and scales. Vectors stay as they lie.

    Raises:
        BuildError: FP8 is asked for and the checkpoint has none, or a number is too large for F16.
    """
    storer = _Storer(bundle, form)
    if form == "F8_E4M3" and not storer.has_fp8:
        raise BuildError("the checkpoint has no FP8 weights to keep", f"choose {option('precision', 'bf16')}, or fp32")
    for value in list(bundle.model.graph.initializers.values()):
        storer.replace(value)
    if bundle.mtp is not None:
        store(bundle.mtp, form)
    return bundle


class _Storer:
    """One run over one graph; new nodes go before its first."""

    def __init__(self, bundle: GraphBundle, form: Stored) -> None:
        self._rewriter, self._form = Rewriter(bundle.model), form
        self._sources, self._stacks = bundle.sources, bundle.stacks
        self._first = next(iter(bundle.model.graph))

    @property
    def has_fp8(self) -> bool:
        groups: Iterable[WeightSource] = [*self._sources.values(), *(e for s in self._stacks.values() for e in s.experts)]
        return any(isinstance(part, Fp8Tensor) for group in groups for part in group.parts)

    def replace(self, value: ir.Value) -> None:
        """Put nodes in place of an initializer of float32 numbers that come from the checkpoint."""
        name, tensor = value.name, value.const_value
        assert name is not None and tensor is not None
        if not isinstance(tensor, ir.LazyTensor) or tensor.dtype != ir.DataType.FLOAT:
            return  # a constant
        shape = [int(size) for size in tensor.shape.numpy()]
        uses = list(value.uses())
        del self._rewriter.graph.initializers[name]
        if name in self._sources:
            whole = self._rows(name, [self._sources[name]])
        elif name in self._stacks:
            whole = self._reshaped(f"{name}.stack", self._rows(name, self._stacks[name].experts), shape)
        elif name.removesuffix(_INTERLEAVED) in self._stacks:
            whole = self._interleaved(name, shape)
        else:
            whole = self._made(name, tensor)
        for node, index in uses:
            node.replace_input_with(index, whole)

    def _rows(self, name: str, sources: Sequence[WeightSource]) -> ir.Value:
        """The parts of `sources`, one below the other."""
        parts = [self._part(*self._named(name, source, i)) for source in sources for i in range(len(source.parts))]
        return parts[0] if len(parts) == 1 else self._op("Concat", *parts, name=f"{name}.joined", axis=0)

    def _interleaved(self, name: str, shape: Sequence[int]) -> ir.Value:
        """[experts, 2 inner, hidden], of each expert a row of its first part and one of its second in turn."""
        experts = self._stacks[name.removesuffix(_INTERLEAVED)].experts
        halves = []
        for half in range(2):
            parts = [self._part(*self._named(name, expert, half)) for expert in experts]
            joined = self._op("Concat", *parts, name=f"{name}.half.{half}", axis=0) if len(parts) > 1 else parts[0]
            halves.append(self._reshaped(f"{name}.rows.{half}", joined, [-1, 1, shape[-1]]))
        return self._reshaped(f"{name}.stack", self._op("Concat", *halves, name=f"{name}.pairs", axis=1), shape)

    @staticmethod
    def _named(name: str, source: WeightSource, index: int) -> tuple[str, Source]:
        return source.part_names[index] if source.part_names else f"{name}.{index}", source.parts[index]

    def _part(self, name: str, part: Source) -> ir.Value:
        """The float32 numbers of one tensor of the checkpoint."""
        if isinstance(part, Fp8Tensor) and self._form == "F8_E4M3":
            return self._scaled(name, part)
        stays = isinstance(part, Tensor) and (len(part.shape) < 2 or part.dtype in _KEPT[self._form])
        if isinstance(part, Tensor) and stays and (located := _located(part)) is not None:
            return self._float(name, located)
        dtype = ir.DataType.FLOAT
        make: Any = part.float32
        if len(part.shape) > 1 and self._form in _HALVES:
            dtype, make = _DTYPES[self._form], lambda: self._half(name, part.float32())
        return self._float(name, ir.LazyTensor(lambda: ir.tensor(make(), name=name), dtype, ir.Shape(part.shape), name=name))

    def _scaled(self, name: str, part: Fp8Tensor) -> ir.Value:
        """Codes times their blocks' scales."""
        codes = _located(part.codes)
        assert codes is not None, "bytes lie at multiples of their size"
        wide = self._part(f"{name}_scale_inv", part.scale)
        for axis, (size, step) in enumerate(zip(part.shape, part.block, strict=True)):
            index = self._rewriter.constant(f"blocks.{size}.{step}", np.arange(size) // step)
            wide = self._op("Gather", wide, index, name=f"{name}.scale.{axis}", axis=axis)
        return self._op("Mul", self._float(name, codes), wide, name=f"{name}.scaled")

    def _made(self, name: str, tensor: ir.LazyTensor) -> ir.Value:
        """A weight that is computed from the checkpoint's: written in the precision's form, without loss where that is FP8."""
        if self._form in _HALVES and len(tensor.shape) > 1:
            made = ir.LazyTensor(
                lambda: ir.tensor(self._half(name, tensor.numpy()), name=name), _DTYPES[self._form], tensor.shape, name=name
            )
            return self._float(name, made)
        return self._register(name, tensor)

    def _half(self, name: str, values: NDArray[np.float32]) -> NDArray[Any]:
        with np.errstate(over="ignore", invalid="ignore"):
            half: NDArray[Any] = values.astype(_HALVES[self._form])
        if not np.isfinite(half).all() and np.isfinite(values).all():
            raise BuildError(
                f"{name} has numbers up to {np.abs(values).max():g}, too large for {self._form}",
                f"choose {option('precision', 'fp32' if self._form == 'BF16' else 'bf16')}",
            )
        return half

    def _float(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """The initializer `name`, cast to float32 where it is not."""
        value = self._register(name, tensor)
        if tensor.dtype == ir.DataType.FLOAT:
            return value
        return self._op("Cast", value, name=f"{name}.float", to=ir.DataType.FLOAT)

    def _reshaped(self, name: str, value: ir.Value, shape: Sequence[int]) -> ir.Value:
        sizes = self._rewriter.constant(f"shape.{'.'.join(map(str, shape))}", np.array(shape, np.int64))
        return self._op("Reshape", value, sizes, name=name)

    def _op(self, kind: str, *inputs: ir.Value, name: str, **attributes: Any) -> ir.Value:
        return self._rewriter.insert(self._first, kind, *inputs, name=name, **attributes)[0]

    def _register(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        assert isinstance(tensor.shape, ir.Shape), "weights have sizes"
        value = ir.val(name, tensor.dtype, tensor.shape, const_value=tensor)
        self._rewriter.graph.register_initializer(value)
        return value


def _located(part: Tensor) -> ir.ExternalTensor | None:
    """The tensor as bytes in its file; None where they do not lie there as plain numbers at a multiple of their size."""
    location, dtype = part.location(), _DTYPES.get(part.dtype)
    if location is None or dtype is None or location[1] % dtype.itemsize:
        return None
    path, offset, length = location
    return ir.ExternalTensor(path.name, offset, length, dtype, shape=ir.Shape(part.shape), name=part.name, base_dir=path.parent)
