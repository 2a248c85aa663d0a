"""Requests to a real server over gRPC as old clients make them: NumPy arrays in, results out."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from .real_server import RealServer

Arrays = Mapping[str, NDArray[Any]]


def words(*values: str) -> NDArray[np.object_]:
    """A STRING tensor [len(values)]."""
    return np.array([v.encode() for v in values], np.object_)


def rows(value: Any, dtype: Any = None) -> NDArray[Any]:
    """A tensor of one row, as clients of TensorRT-LLM send it: [[value]], or [[a, b]] of a list."""
    listed = value if isinstance(value, list) else [value]
    if isinstance(listed[0], str):
        return words(*listed).reshape(1, -1)
    kinds: dict[type, Any] = {bool: np.bool_, int: np.int32, float: np.float32}
    return np.array([listed], dtype or kinds[type(listed[0])])


def tensors(arrays: Arrays) -> list[triton_grpc.InferInput]:
    made = []
    for name, array in arrays.items():
        made.append(triton_grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    return made


def streamed(
    server: RealServer,
    model: str,
    arrays: Arrays,
    *,
    outputs: Sequence[str] = (),
    request_id: str = "",
    empty_final: bool = False,
) -> list[Any]:
    """All responses of one request over ModelStreamInfer; an error is raised."""
    got: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    asked = [triton_grpc.InferRequestedOutput(name) for name in outputs] or None
    with triton_grpc.InferenceServerClient(server.options.grpc_url) as client:
        client.start_stream(callback=lambda result, error: got.put((result, error)))
        client.async_stream_infer(
            model, tensors(arrays), outputs=asked, request_id=request_id, enable_empty_final_response=empty_final
        )
        client.stop_stream()
    found = [got.get() for _ in range(got.qsize())]
    for _, error in found:
        if error is not None:
            raise error
    return [result for result, _ in found]


def joined(results: Sequence[Any]) -> str:
    """The text of a stream of one sequence."""
    return "".join(r.as_numpy("text_output")[0].decode() for r in results)
