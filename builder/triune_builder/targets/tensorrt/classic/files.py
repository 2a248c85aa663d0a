"""Classic graphs on disk: one file of weights, which are inputs of every graph, and a graph for each size of run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from triune_runtime.targets.device.stored import StoredWeight

from ....graph.export import GraphBundle
from ....quantize.change import Change
from ... import onnx_files
from ...onnx_weights import stored_weights

_NUMPY = {"float": np.float32, "float16": np.float16}


def write_weights(
    bundle: GraphBundle,
    weights: frozenset[str],
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    changes: Sequence[Change] = (),
) -> list[StoredWeight]:
    """Write the `weights` of `bundle` into `onnx_files.DATA`; where each of them lies. For the rest see `onnx_files.write`."""
    onnx_files.write(bundle, folder, progress, changes=changes, outside=lambda tensor: tensor.name in weights)
    return stored_weights(folder / onnx_files.MODEL)


def write_graph(bundle: GraphBundle, weights: frozenset[str], path: Path) -> None:
    """Write the graph of `bundle`, in which `weights` become inputs."""
    graph = bundle.model.graph
    for name in sorted(weights):
        value = graph.initializers.pop(name)
        assert value.const_value is not None, f"{name} has no value"
        value.shape = value.shape or ir.Shape(value.const_value.shape.numpy())
        value.const_value = None
        graph.inputs.append(value)
    ir.save(bundle.model, path)


def sized(source: Path, target: Path, sizes: dict[str, int]) -> None:
    """Write the graph `source` as `target` with the sizes that vary set to `sizes`, by their names: batch, n, m."""
    model = onnx.load(str(source), load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in sizes:
                size.dim_value = sizes[size.dim_param]
    onnx.save(model, str(target))


def read_weights(weights: Sequence[StoredWeight], folder: Path) -> dict[str, NDArray[Any]]:
    """The weights, in their mapped file."""
    data = np.memmap(folder / onnx_files.DATA, np.uint8, "r")
    found = {}
    for weight in weights:
        dtype = np.dtype(_NUMPY[weight.dtype])
        assert weight.length == math.prod(weight.shape) * dtype.itemsize, weight
        found[weight.name] = data[weight.offset : weight.offset + weight.length].view(dtype).reshape(weight.shape)
    return found
