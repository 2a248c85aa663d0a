"""Runs a published engine a few weights at a time: its own nodes and its own files, cut into pieces that fit in memory.

All texts go through one piece before the next is loaded. For proving an engine that is larger than the machine's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from triune_runtime.manifest import CacheTensor
from triune_runtime.targets.cpu.session import ask_for_exact_products

from ...errors import BuildError

PIECE = 1 << 29  # bytes of weights loaded at once, unless one node reads more
_POSITIONS = 64  # whose logits are computed at once
_WIDE = 1 << 30  # from so many bytes on, weights are not also kept in a kernel's own order

State = dict[str, NDArray[Any]]


class Logits(NamedTuple):
    """Logits [len(positions), vocab] after some tokens of text number `text`."""

    text: int
    positions: NDArray[np.int64]
    logits: NDArray[np.float32]


@dataclass
class _Piece:
    """Some nodes in a row, and the constant nodes that they read."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    own: set[str] = field(default_factory=set)  # what its nodes make
    cost: int = 0  # bytes of weights, as loaded
    reads: set[str] = field(default_factory=set)  # of graph inputs and of earlier pieces
    makes: set[str] = field(default_factory=set)  # for later pieces
    by_position: bool = False  # runs once for every few positions whose logits are wanted


class OrtPieces:
    """An engine in pieces; knows prompts only, no decoding and no batches."""

    def __init__(self, path: Path, cache: Sequence[CacheTensor], *, piece_bytes: int = PIECE) -> None:
        self._folder, self._cache = path.parent, cache
        self._model = onnx.load(str(path), load_external_data=False)
        self._initializers = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._inputs = {value.name: value for value in self._model.graph.input}
        self._constant = self._constant_nodes()
        self._pieces = self._cut(piece_bytes)

    @property
    def count(self) -> int:
        return len(self._pieces)

    def capacity(self) -> int:
        """Tokens that a text may have: more than a window's buffer holds are not read at once."""
        return min((c.window or 1 << 30 for c in self._cache), default=1 << 30)

    def run(self, texts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Iterator[Logits]:
        """Logits of `texts` (token ids) at `positions` of each, a few at a time."""
        states: list[tuple[int, NDArray[np.int64], State]] = [
            (number, np.asarray(positions[number], np.int64), {"input_ids": np.array([text], np.int64),
             "total_lengths": np.array([len(text)], np.int32)})
            for number, text in enumerate(texts)
        ]  # fmt: skip
        split = False
        for number, piece in enumerate(self._pieces):
            if piece.by_position and not split:
                states = [
                    (text, part, state | {"logit_positions": part})
                    for text, wanted, state in states
                    for part in (wanted[i : i + _POSITIONS] for i in range(0, len(wanted), _POSITIONS))
                ]
                split = True
            needed = set().union(*(later.reads for later in self._pieces[number + 1 :]))
            session, names = self._session(piece, states[0][2]), sorted(piece.makes)
            for i, (text, wanted, state) in enumerate(states):
                feeds = {name: state[name] if name in state else self._empty(name, state) for name in piece.reads}
                made = dict(zip(names, session.run(names, feeds), strict=True))
                if number == len(self._pieces) - 1:
                    yield Logits(text, wanted, made["logits"][0])
                states[i] = text, wanted, {k: v for k, v in (state | made).items() if k in needed or k == "input_ids"}

    def _empty(self, name: str, state: State) -> NDArray[Any]:
        """A layer's cache before the first token."""
        for c in self._cache:
            if name == f"past.{c.name}":
                return np.zeros((1, c.heads, c.positions(state["input_ids"].shape[1]), c.dim), c.dtype)
        raise BuildError(f"nothing makes {name}, which the engine reads", "this is a fault of the lowering; report it")

    def _session(self, piece: _Piece, state: State) -> onnxruntime.InferenceSession:
        inputs = [
            self._inputs[name] if name in self._inputs else _value(name, state[name].dtype) for name in sorted(piece.reads)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in sorted(piece.makes)]
        named = {name for node in piece.nodes for name in node.input}
        graph = onnx.helper.make_graph(
            piece.nodes, "piece", inputs, outputs, [t for name, t in self._initializers.items() if name in named]
        )
        model = onnx.helper.make_model(
            graph, ir_version=self._model.ir_version, opset_imports=self._model.opset_import, functions=self._model.functions
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self._folder))
        ask_for_exact_products(options)
        if piece.cost > _WIDE:
            options.add_session_config_entry("session.disable_prepacking", "1")
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def _constant_nodes(self) -> dict[str, onnx.NodeProto]:
        """Output -> node, of the nodes that read nothing but weights: they run when an engine is loaded."""
        constant: dict[str, onnx.NodeProto] = {}
        for node in self._model.graph.node:
            if all(name in self._initializers or name in constant for name in node.input if name):
                constant |= dict.fromkeys(node.output, node)
        return constant

    def _cut(self, most: int) -> list[_Piece]:
        pieces = [_Piece()]
        positional: set[str] = {"logit_positions"}
        for node in self._model.graph.node:
            if any(name in self._constant for name in node.output):
                continue
            sources, cost = self._sources(node)
            is_positional = any(name in positional for name in node.input)
            if is_positional:
                positional |= set(node.output)
            begins = is_positional and not pieces[-1].by_position
            if pieces[-1].nodes and (begins or pieces[-1].cost + cost > most):
                pieces.append(_Piece(by_position=pieces[-1].by_position or begins))
            piece = pieces[-1]
            piece.nodes += [other for other in sources if other.output[0] not in piece.own]
            piece.nodes.append(node)
            piece.own.update(name for other in (*sources, node) for name in other.output)
            piece.cost += cost
        self._link(pieces)
        return pieces

    def _sources(self, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], int]:
        """The constant nodes that `node` reads, and theirs, in order; and the bytes of all weights as float32 or as stored."""
        found: dict[str, onnx.NodeProto] = {}  # by their first output
        cost, waiting = 0, list(node.input)
        while waiting:
            name = waiting.pop()
            if name in self._initializers:
                tensor = self._initializers[name]
                cost += int(np.prod(tensor.dims)) * _BYTES.get(tensor.data_type, 4)
            elif name in self._constant and self._constant[name].output[0] not in found:
                found[self._constant[name].output[0]] = self._constant[name]
                waiting += self._constant[name].input
        return list(found.values())[::-1], cost

    def _link(self, pieces: Sequence[_Piece]) -> None:
        """What goes from piece to piece."""
        made: dict[str, _Piece] = {}
        for piece in pieces:
            for node in piece.nodes:
                for name in node.input:
                    if name and name not in piece.own and name not in self._initializers:
                        piece.reads.add(name)
                        if name in made:
                            made[name].makes.add(name)
            made |= dict.fromkeys(piece.own, piece)
        pieces[-1].makes.add("logits")


_BYTES = {onnx.TensorProto.UINT8: 1, onnx.TensorProto.INT8: 1, onnx.TensorProto.INT64: 8}


def _value(name: str, dtype: np.dtype[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(dtype), None)
