"""Chooses codes by GPTQ while the float reference runs: every layer reads what those before it compute with their codes.

What is chosen lies in a folder, a file a weight: an interrupted run chooses no code twice, and the memory holds one weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BuildError
from ..graph.export import GraphBundle
from ..graph.rewrite import Rewriter
from ..graph.weights import Source, WeightSource
from .gptq import NOTE, Inputs, gptq
from .policy import BY_GPTQ, Precision
from .schemes.blocks import BLOCK, BlockCodes, ChosenPart, carried_codes
from .smooth import linear_name
from .statistics import Observe

_BITS = 4  # of every scheme in `BY_GPTQ`


@dataclass(frozen=True)
class Open:
    """A tensor of the checkpoint whose codes are to be chosen."""

    part: Source
    symmetric: bool

    def choose(self, inputs: Inputs) -> BlockCodes:
        return gptq(self.part.float32(), inputs, _BITS, symmetric=self.symmetric)


def open_parts(bundle: GraphBundle, precision: Precision) -> dict[str, Open]:
    """The tensors of which `precision` chooses codes of four bits and whose own blocks cannot be carried, by their names."""
    found = {}
    for graph in _graphs(bundle):
        for rule, source, is_expert in _weights(graph):
            scheme = precision.scheme(rule)
            if scheme not in BY_GPTQ or source.shape[1] % BLOCK:  # `quantize` refuses those
                continue
            symmetric = BY_GPTQ[scheme]
            for name, part in zip(source.part_names, source.parts, strict=True):
                if carried_codes(part, _BITS, symmetric=symmetric, plain=is_expert) is None:
                    found[name] = Open(part, symmetric)
    return found


def choose_codes(
    bundle: GraphBundle,
    parts: Mapping[str, Open],
    weights: Mapping[str, Any],
    folder: Path,
    run: Callable[[Mapping[str, Any], Observe], None],
) -> None:
    """Choose the codes of `parts` and put them into the sources of `bundle`; what no calibration text reaches stays as it is.

    Args:
        weights: of the checkpoint.
        folder: gets, or has, what is chosen.
        run: computes the model over the calibration texts with the weights that it is given, and tells of every linear once,
            before it reads its weight.

    Raises:
        BuildError: the model computes what is no number.
    """
    folder.mkdir(exist_ok=True)
    chooser = _Chooser(parts, weights, folder)
    run(chooser.weights, chooser.observe)
    for graph in _graphs(bundle):
        for key, source in graph.sources.items():
            graph.sources[key] = chooser.put(source)
        for key, stack in graph.stacks.items():
            graph.stacks[key] = dataclasses.replace(stack, experts=tuple(map(chooser.put, stack.experts)))


class _Chooser:
    """The model's weights, of which those with codes are the numbers that these stand for."""

    def __init__(self, parts: Mapping[str, Open], weights: Mapping[str, Any], folder: Path) -> None:
        self.weights = dict(weights)
        self._parts, self._folder = parts, folder
        self._chosen: dict[str, _Kept] = {}
        self._x: NDArray[Any] | None = None  # what was observed last; queries, keys and values read the same
        self._inputs: Inputs | None = None

    def observe(self, name: str, x: NDArray[Any]) -> None:
        """Choose the codes of the weight `name`, whose inputs are `x` [tokens, columns]."""
        if name not in self._parts:
            return
        kept = _Kept(self._folder / f"{name}.npz", self._parts[name].part.shape)
        if not kept.path.exists():
            kept.save(self._parts[name].choose(self._known(name, x)))
        self._chosen[name] = self.weights[name] = kept

    def put(self, source: WeightSource) -> WeightSource:
        """`source` with the codes that were chosen."""
        parts = [
            ChosenPart(part, self._chosen[name].codes) if name in self._chosen else part
            for name, part in zip(source.part_names, source.parts, strict=False)  # no names, no codes
        ]
        return dataclasses.replace(source, parts=tuple(parts)) if parts else source

    def _known(self, name: str, x: NDArray[Any]) -> Inputs:
        if self._x is not x or self._inputs is None:
            if not np.isfinite(x).all():
                raise BuildError(
                    f"the model computes what is no number, such as the input of {name}: no codes can be chosen",
                    "fetch the weights again: some of them are not finite, or far too large",
                )
            self._inputs = None  # let go of it before the next one is made
            self._x, self._inputs = x, Inputs.of(x)
        return self._inputs


@dataclass(frozen=True)
class _Kept:
    """Codes in a file, two in a byte."""

    path: Path
    shape: tuple[int, ...]

    def save(self, codes: BlockCodes) -> None:
        packed = codes.codes[:, ::2] | codes.codes[:, 1::2] << 4
        beside = self.path.with_suffix(".tmp.npz")
        np.savez(beside, packed=packed, scale=codes.scale, offset=codes.offset)
        beside.replace(self.path)

    def codes(self) -> BlockCodes:
        with np.load(self.path) as arrays:
            packed, scale, offset = arrays["packed"], arrays["scale"], arrays["offset"]
        codes = np.empty(self.shape, np.uint8)
        codes[:, ::2], codes[:, 1::2] = packed & 15, packed >> 4
        return BlockCodes(codes, scale, offset, note=NOTE)

    def float32(self) -> NDArray[np.float32]:
        return self.codes().values()


def _graphs(bundle: GraphBundle) -> Iterator[GraphBundle]:
    yield bundle
    if bundle.mtp is not None:
        yield from _graphs(bundle.mtp)


def _weights(bundle: GraphBundle) -> Iterator[tuple[str, WeightSource, bool]]:
    """Of every product the name that rules match, its weight, and whether that is an expert's."""
    rewriter = Rewriter(bundle.model)
    for node in rewriter.find("Linear"):
        weight = node.inputs[1]
        assert weight is not None and weight.name is not None
        yield linear_name(node), bundle.sources[weight.name], False
    for node in rewriter.find("Experts"):
        gate_up = node.inputs[3]
        assert gate_up is not None and gate_up.name is not None
        for stack in node.inputs[3:]:
            assert stack is not None and stack.name is not None
            yield from ((gate_up.name, expert, True) for expert in bundle.stacks[stack.name].experts)
