"""NumPy tensors <-> Python values, and where a model of the repository finds the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.outputs import OUTPUTS, Output
from ..errors import Overloaded, RequestError, TriuneError

Tensors = Mapping[str, NDArray[Any]]  # as they come in
DTYPES = {"INT32": np.int32, "UINT32": np.uint32, "INT64": np.int64, "FP32": np.float32}
Arrays = dict[str, NDArray[Any]]  # as they go out


def engine_folder(model_folder: str) -> Path:
    """The folder of engine.json, seen from any model of the repository: its neighbour `generate`, version 1."""
    return Path(model_folder).parent / "generate" / "1"


def request_parameters(raw: Callable[[], str]) -> dict[str, Any]:
    """A request's parameters, from Triton's way to ask for them, which fails on text that is not UTF-8.

    Raises:
        RequestError: a parameter or the id is not valid UTF-8.
    """
    try:
        parameters: dict[str, Any] = json.loads(raw() or "{}")
    except ValueError as error:
        raise RequestError(f"a parameter or the id is not valid UTF-8: {error}", "send UTF-8 text") from None
    return parameters


def without_floats(parameters: Mapping[str, Any]) -> dict[str, str | int | bool]:
    """Parameters as a model's own request can carry them: not floats, says Triton. Numbers may be strings to us."""

    def carried(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return int(value) if value.is_integer() and abs(value) < 2**63 else repr(value)

    return {name: carried(value) for name, value in parameters.items()}


def flat(array: NDArray[Any]) -> list[Any]:
    """The elements in order; strings stay bytes."""
    return list(array.reshape(-1).tolist())


def strings(*values: str) -> NDArray[np.object_]:
    """A STRING tensor [len(values)]."""
    return np.array([v.encode("utf-8") for v in values], np.object_)


def tensors(values: Mapping[str, Any]) -> Arrays:
    """Values by the output that has them, each as a tensor of the type and shape declared: of single ones, one element."""
    return {name: _tensor(OUTPUTS[name], value) for name, value in values.items()}


def _tensor(output: Output, value: Any) -> NDArray[Any]:
    if not isinstance(value, (tuple, list)):
        value = [value] if len(output.dims) == 1 else [[value]]
    return strings(*value) if output.type == "STRING" else np.array(value, DTYPES[output.type])


def status_name(error: TriuneError) -> str:
    """gRPC's name of an error's kind."""
    if isinstance(error, Overloaded):
        return "UNAVAILABLE"
    return "INVALID_ARGUMENT" if isinstance(error, RequestError) else "INTERNAL"


def error_text(error: TriuneError) -> str:
    """The text of an error response. It begins with its status, because Triton 2.51 hands only the text on to clients."""
    return f"{status_name(error)}: {error}"


def status_in(message: str) -> str:
    """The status at the beginning of an error's text, which Triton may have put an ensemble's name before."""
    head = message[:200]
    found = [(head.find(f"{name}: "), name) for name in ("INVALID_ARGUMENT", "UNAVAILABLE", "INTERNAL")]
    return min((at, name) for at, name in [*found, (len(head), "INTERNAL")] if at >= 0)[1]
