"""From a lowered graph to a TensorRT engine: the graph and its weights on disk, the profiles, the plan and its report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto as T

from triune_runtime.manifest import CacheTensor, Limits

from ...errors import BuildError
from .adapter import Network, Shapes, TensorRt

PLAN = "model.plan"
GRAPH = "model.onnx"
MOST_LOGITS = 32  # positions of a run that may have logits: drafts and the token before them
_BEST_BATCH = 8  # sequences that decoding is tuned for


def profiles(limits: Limits) -> dict[str, dict[str, tuple[int, int, int]]]:
    """Name -> batch, tokens and logits, each least, best and most; in the order of the profiles' indices.

    Both take two sequences at least, though prompts are run one at a time: TensorRT lays weights out in another way for a batch
    that is always one, and would keep most of them twice.
    """
    chunk, most = limits.prefill_chunk, max(2, limits.max_sequences)
    return {
        "prefill": {"batch": (1, 1, 2), "tokens": (1, chunk, chunk), "logits": (1, 1, min(chunk, MOST_LOGITS))},
        "decode": {"batch": (1, min(_BEST_BATCH, most), most), "tokens": (1, 1, 1), "logits": (1, 1, 1)},
    }


def shapes(ranges: Mapping[str, tuple[int, int, int]], cache: tuple[CacheTensor, ...], capacity: int) -> Shapes:
    """The shapes of every input in one profile."""

    def triple(*sizes: str | int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        least, best, most = (tuple(ranges[s][i] if isinstance(s, str) else s for s in sizes) for i in range(3))
        return least, best, most

    inputs = {
        "input_ids": triple("batch", "tokens"),
        "positions": triple("batch", "tokens"),
        "starts": triple("batch"),
        "logit_positions": triple("logits"),
    }
    inputs |= {f"past.{c.name}": triple("batch", c.heads, capacity, c.dim) for c in cache}
    return Shapes(inputs=inputs)


def weights(graph: Path) -> dict[str, NDArray[np.uint8]]:
    """Bytes of every weight that lies beside `graph`, mapped: pages come and go as they are read."""
    model = onnx.load(str(graph), load_external_data=False)
    files: dict[str, NDArray[np.uint8]] = {}
    found = {}
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        file = files.setdefault(place["location"], np.memmap(graph.parent / place["location"], np.uint8, "r"))
        offset = int(place.get("offset", 0))
        found[tensor.name] = file[offset : offset + int(place["length"])]
    return found


def lint(graph: Path) -> None:
    """Refuse what TensorRT's parser drops without a word (measured with 1.7).

    Raises:
        BuildError: the ONNX file `graph` has an attention with such an input or attribute.
    """
    dropped = []
    for node in onnx.load(str(graph), load_external_data=False).graph.node:
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type == "Attention":
            dropped += [f"{node.name}: nonpad_kv_seqlen"] if len(node.input) > 6 and node.input[6] else []
            dropped += [f"{node.name}: is_causal"] if attributes.get("is_causal") else []
            dropped += [f"{node.name}: {a}" for a in ("left_window_size", "right_window_size") if attributes.get(a, -1) >= 0]
    if dropped:
        raise BuildError(
            f"TensorRT's parser would drop {'; '.join(dropped[:5])}: the engine would be wrong",
            "say it in the attention's mask",
        )


def parse(rt: TensorRt, graph: Path) -> Network:
    """The network definition of the ONNX file `graph`, whose weights stay in their file."""
    return Network(rt, graph, weights(graph))


def hidden_weights(graph: Path) -> dict[str, NDArray[Any]]:
    """Weights whose numbers TensorRT's bindings do not give: bfloat16, FP8 and INT4, by name."""
    kinds = {T.BFLOAT16: ml_dtypes.bfloat16, T.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn, T.INT4: ml_dtypes.int4}
    model = onnx.load(str(graph), load_external_data=False)
    outside = weights(graph)
    found: dict[str, NDArray[Any]] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type not in kinds:
            continue
        data = outside.get(tensor.name, np.frombuffer(tensor.raw_data, np.uint8))
        if tensor.data_type == T.INT4:
            halves = np.stack([data & 15, data >> 4], -1).reshape(-1)[: math.prod(tensor.dims)]
            data = ((halves ^ 8).astype(np.int8) - 8).astype(ml_dtypes.int4)
        found[tensor.name] = data.view(kinds[tensor.data_type]).reshape(tuple(tensor.dims))
    return found
