"""The weights that an ONNX file has outside of itself."""

from __future__ import annotations

from pathlib import Path

import onnx

from triune_runtime.targets.device.stored import StoredWeight


def stored_weights(graph: Path) -> list[StoredWeight]:
    """Where each of the weights lies that the ONNX file `graph` has outside of it."""
    found = []
    for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer:
        if place := {entry.key: entry.value for entry in tensor.external_data}:
            found.append(
                StoredWeight(
                    name=tensor.name,
                    dtype=onnx.TensorProto.DataType.Name(tensor.data_type).lower(),
                    shape=tuple(tensor.dims),
                    file=place["location"],
                    offset=int(place.get("offset", 0)),
                    length=int(place["length"]),
                )
            )
    return found
