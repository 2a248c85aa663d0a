"""Writes a graph for ONNX Runtime: model.onnx and its weights in model.data, one weight in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from ..graph.export import GraphBundle

MODEL = "model.onnx"
DATA = "model.data"
_ALIGNMENT = 4096  # of each weight in the data file, so that it can be memory-mapped
_SMALL = 1024  # bytes up to which a constant stays inside model.onnx


def write(bundle: GraphBundle, folder: Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Write the graph of `bundle` into `folder`; returns the names of the files.

    Args:
        progress: called with (weights written, weights in all).
    """
    initializers = bundle.model.graph.initializers.values()
    lazy = [value.const_value for value in initializers]
    try:
        with (folder / DATA).open("wb") as data:
            for done, value in enumerate(initializers, start=1):
                _append(value, data, folder)
                if progress:
                    progress(done, len(lazy))
        ir.save(bundle.model, folder / MODEL)
    finally:
        for value, tensor in zip(initializers, lazy, strict=True):
            value.const_value = tensor
    return [MODEL, DATA]


def _append(value: ir.Value, data: BinaryIO, folder: Path) -> None:
    """Move one weight's bytes to the end of the data file; a small one stays in the graph."""
    tensor = value.const_value
    assert tensor is not None and isinstance(tensor.shape, ir.Shape), f"{value.name} has no value"
    if tensor.nbytes <= _SMALL:
        return
    data.write(b"\0" * (-data.tell() % _ALIGNMENT))
    offset = data.tell()
    data.write(tensor.tobytes())
    length = data.tell() - offset
    value.const_value = ir.ExternalTensor(
        DATA, offset, length, tensor.dtype, shape=tensor.shape, name=value.name or "", base_dir=folder
    )
