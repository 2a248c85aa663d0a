"""Float graph -> quantized graph: replaces linears, experts and the embedding by codes and scales, and says what it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BuildError
from ..graph.export import GraphBundle
from ..graph.rewrite import Rewriter
from ..graph.weights import WeightSource
from .change import Change as Change
from .coded import Latest, Weight
from .policy import Precision
from .schemes import find_scheme, needs
from .schemes.scheme import Coded, Scheme
from .smooth import linear_name, observed_name, smooth
from .statistics import MAXIMA, Array, Statistic, Statistics


@dataclass(frozen=True)
class Quantized:
    """The new graph, what was changed, and which linears were smoothed."""

    bundle: GraphBundle
    changes: list[Change]
    smoothed: list[str] = field(default_factory=list)


def quantize(bundle: GraphBundle, precision: Precision, statistics: Mapping[Statistic, Mapping[str, Array]] = {}) -> Quantized:
    """Apply `precision` to the graph of `bundle`, in place.

    Args:
        statistics: what `needs(precision)` names.

    Raises:
        BuildError: a statistic is missing or not finite, or a weight that a scheme cannot hold.
    """
    if missing := needs(precision) - statistics.keys():
        raise BuildError(
            f"precision {precision.name} needs {', '.join(s.name for s in missing)} and was given no calibration",
            "pass what `gather` finds",
        )
    wrong = sorted({name for found in statistics.values() for name, array in found.items() if not np.isfinite(array).all()})
    if wrong:
        raise BuildError(
            f"the model computes what is no number, such as the input of {wrong[0]}: no scale can be chosen",
            "fetch the weights again: some of them are not finite, or far too large",
        )
    smoothed = []
    if MAXIMA in needs(precision):
        smoothed = smooth(bundle.model, bundle.sources, statistics[MAXIMA], lambda name: _needs_maxima(precision, name))
    pass_ = _Pass(bundle, precision, statistics)
    pass_.linears()
    pass_.embedding()
    pass_.experts()
    pass_.rewriter.finish({})
    changes = pass_.changes
    if bundle.mtp is not None:
        inner = quantize(bundle.mtp, precision, statistics)
        for change in inner.changes:
            change.name = f"mtp: {change.name}"  # it has a head and an embedding of its own
        changes += inner.changes
        smoothed += inner.smoothed
    return Quantized(bundle, changes, smoothed)


def _needs_maxima(precision: Precision, name: str) -> bool:
    scheme = find_scheme(precision.scheme(name))
    return scheme is not None and MAXIMA in scheme.needs


class _Pass:
    """One run over one graph."""

    def __init__(self, bundle: GraphBundle, precision: Precision, statistics: Statistics) -> None:
        self.rewriter = Rewriter(bundle.model)
        self.changes: list[Change] = []
        self._bundle, self._precision, self._statistics = bundle, precision, statistics
        self._latest = Latest()

    def linears(self) -> None:
        """Weights of products, each in the scheme of the first rule that its name matches."""
        for node in self.rewriter.find("Linear"):
            name, weight = linear_name(node), node.inputs[1]
            assert weight is not None and weight.name is not None
            if scheme := find_scheme(self._precision.scheme(name)):
                sources, inputs = [self._bundle.sources[weight.name]], [observed_name(self._bundle.sources, name)]
                scheme.rewrite(self.rewriter, node, [self._coded(name, scheme, sources, inputs)])

    def embedding(self) -> None:
        """Tables that are read by Gather."""
        scheme = find_scheme(self._precision.embedding)
        for node in self.rewriter.find("Gather", domain=""):
            table = node.inputs[0]
            if scheme and table is not None and table.name in self._bundle.sources:
                sources = [self._bundle.sources[table.name]]
                scheme.rewrite(self.rewriter, node, [self._coded(f"{table.name}.table", scheme, sources, [])])

    def experts(self) -> None:
        """Both stacks of a node, in what holds experts under the scheme of the first."""
        for node in self.rewriter.find("Experts"):
            gate_up, down = node.inputs[3:]
            assert gate_up is not None and gate_up.name is not None and down is not None and down.name is not None
            if (linear := find_scheme(self._precision.scheme(gate_up.name))) is None:
                continue
            scheme = linear.experts
            assert scheme is not None, f"a rule names {linear.name}, which holds no linears"
            stacks = [self._bundle.stacks[name] for name in (gate_up.name, down.name)]
            coded = [
                self._coded(s.name, scheme, s.experts, [expert.part_names[0] for expert in s.experts], is_stack=True)
                for s in stacks
            ]
            scheme.rewrite(self.rewriter, node, coded)

    def _coded(
        self,
        name: str,
        scheme: Scheme[Any],
        sources: Sequence[WeightSource],
        inputs: Sequence[str],
        *,
        is_stack: bool = False,
    ) -> Coded:
        """The weight in the graph; `inputs` has the names under which the inputs of `sources` were observed."""
        (rows, columns), count = sources[0].shape, len(sources)
        after = count * scheme.bytes(rows, columns, self._precision.scale_bytes)
        change = Change(name, scheme.name, bytes_before=4 * count * rows * columns, bytes_after=after)
        found = [{s: self._statistics[s][n] for s in scheme.needs if n in self._statistics[s]} for n in inputs]
        weight = Weight(change, scheme, sources, found or [{}], self._latest, is_stack=is_stack)
        self.changes.append(change)
        return weight.put(self.rewriter)
