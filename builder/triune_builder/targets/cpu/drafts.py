"""An engine's graph -> one that checks drafts: several tokens of a sequence at once, with the bits of one after the other.

Run as n tokens of one sequence, other kernels would do the products: ONNX Runtime's for one row differ from those for many. The
last bits of activations decide how they are rounded, so that within a few tokens w8a8's logits would be others by percents. So
the tokens run as the engine runs a batch of n sequences, which the build proves to change no bit, and only attention knows
better: each token has an attention op of its own, which appends to the one cache and reads what those before it have appended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from triune_runtime.manifest import checked_name

from ...graph.rewrite import Place, Rewriter
from .rows import CONTRIB

_CACHE_INPUTS, _LENGTH_INPUTS = (3, 4), (5, 6)  # of GroupQueryAttention


def write_checking(engine: Path, target: Path, tokens: int) -> None:
    """Write the graph of `engine` for `tokens` tokens of each sequence beside it; its weights are the engine's own files.

    Inputs are the engine's for a batch of `tokens` times s: of s sequences the first token, then of each the second, and so on,
    with `total_lengths` that grow accordingly. But `past.NAME` is of s sequences. To every output `present.NAME` come those of
    the further tokens, all to be bound to the one buffer.
    """
    model = ir.load(engine)
    check_drafts(model, tokens)
    ir.save(model, target)


def check_drafts(model: ir.Model, tokens: int) -> None:
    """Rewrite the lowered graph in place."""
    rewriter = Rewriter(model)
    axis = rewriter.constant("drafts.axis", np.array([0], np.int64))
    one = rewriter.constant("one.int32", np.array(1, np.int32))
    lengths: dict[ir.Value, list[tuple[ir.Value, ir.Value]]] = {}  # last positions -> each token's, and its total length
    for node in rewriter.find("GroupQueryAttention", domain=CONTRIB):
        place, inputs = Place(rewriter, node), list(node.inputs)
        last = inputs[_LENGTH_INPUTS[0]]
        assert last is not None, "attention without lengths"
        if last not in lengths:
            parts = place.ops("Split", last, part="drafts.last", outputs=tokens, axis=0, num_outputs=tokens)
            lengths[last] = [(part, _longest(place, part, axis, one, i)) for i, part in enumerate(parts)]
        split = {
            value: place.ops("Split", value, part=f"drafts.in.{i}", outputs=tokens, axis=0, num_outputs=tokens)
            for i, value in enumerate(inputs[: _CACHE_INPUTS[0]])
            if value is not None and value not in inputs[:i]
        }
        _one_by_one(rewriter, node, tokens, split, lengths[last])
    rewriter.finish({})


def _longest(place: Place, last: ir.Value, axis: ir.Value, one: ir.Value, token: int) -> ir.Value:
    """Of the sequences whose last positions these are, the length of the longest."""
    position = place.op("ReduceMax", last, axis, part=f"drafts.{token}", keepdims=0)
    return place.op("Add", position, one, part=f"drafts.total.{token}")


def _one_by_one(
    rewriter: Rewriter,
    node: ir.Node,
    tokens: int,
    split: Mapping[ir.Value, Sequence[ir.Value]],
    lengths: list[tuple[ir.Value, ir.Value]],
) -> None:
    """Replace `node` by one like it for each token, of which the next reads the cache that the one before has written."""
    place, past, results = Place(rewriter, node), [node.inputs[i] for i in _CACHE_INPUTS], []
    first: list[ir.Value] = []
    for token in range(tokens):
        inputs = [split[v][token] if v is not None and v in split else v for v in node.inputs]
        inputs[_CACHE_INPUTS[0]], inputs[_CACHE_INPUTS[1]] = past
        inputs[_LENGTH_INPUTS[0]], inputs[_LENGTH_INPUTS[1]] = lengths[token]
        outputs = place.ops(
            "GroupQueryAttention", *inputs, part=f"token.{token}", outputs=3, domain=CONTRIB,
            **{name: attribute.value for name, attribute in node.attributes.items()},
        )  # fmt: skip
        results.append(outputs[0])
        past = list(outputs[1:])
        if not token:
            first = list(outputs[1:])
            continue
        for value, old in zip(outputs[1:], node.outputs[1:], strict=True):
            value.name, value.type, value.shape = checked_name(old.name or "", token), old.type, old.shape
            rewriter.graph.outputs.append(value)
    rewriter.replace(node, [place.op("Concat", *results, part="together", axis=0), *first])
