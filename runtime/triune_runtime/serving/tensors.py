"""NumPy tensors <-> Python values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.outputs import OUTPUTS, Output
from ..errors import RequestError, Status, TriuneError
from ..options.declared import CLIENT
from ..options.values import Text

Tensors = Mapping[str, NDArray[Any]]  # as they come in
Arrays = dict[str, NDArray[Any]]  # as they go out
_DTYPES = {"INT32": np.int32, "UINT32": np.uint32, "INT64": np.int64, "FP32": np.float32}
_TRITONS: Mapping[Status, str] = {"INVALID_ARGUMENT": "INVALID_ARG", "UNAVAILABLE": "UNAVAILABLE", "INTERNAL": "INTERNAL"}
_PARAM = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")  # a client may send any name: of others, the text alone speaks
_HEAD = re.compile(rf"\b({'|'.join(_TRITONS)})(?: \[\w+(?: {_PARAM.pattern})?\])?: ")


def request_parameters(raw: Callable[[], str]) -> dict[str, Any]:
    """A request's parameters, from Triton's way to ask for them, which fails on text that is not UTF-8.

    Raises:
        RequestError: a parameter or the id is not valid UTF-8.
    """
    try:
        parameters: dict[str, Any] = json.loads(raw() or "{}")
    except ValueError as error:
        said = f"a parameter or the id is not valid UTF-8: {error}"
        raise RequestError(said, "send UTF-8 text", code="invalid_value") from None
    return parameters


def client_of(parameters: Mapping[str, Any]) -> str:
    """Whose request it is, as whoever lets clients in has Triton say; "": nobody's in particular.

    Raises:
        RequestError: that is no name.
    """
    return Text(1024).read(f"parameter {CLIENT}", parameters[CLIENT]) if CLIENT in parameters else ""


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
    return strings(*value) if output.type == "STRING" else np.array(value, _DTYPES[output.type])


def error_text(error: TriuneError) -> str:
    """The text of an error response, such as `INVALID_ARGUMENT [too_long prompt]: prompt has ...`.

    Status, code and input are told in it, because Triton 2.51 hands only the text on to clients.
    """
    param = f" {error.param}" if error.param and _PARAM.fullmatch(error.param) else ""
    return f"{error.status} [{error.code}{param}]: {error}"


def triton_error(error: TriuneError, kind: Any) -> Any:
    """An error as Triton's; `kind` is its class `TritonError`, which appears only after a model's module has been imported."""
    return kind(error_text(error), getattr(kind, _TRITONS[error.status]))


def triton_error_again(message: str, kind: Any) -> Any:
    """An error that came as a text from another model: Triton has put an ensemble's name before it, and lost its code."""
    found = _HEAD.search(message[:200])
    return kind(message, getattr(kind, _TRITONS[found.group(1)] if found else "INTERNAL"))  # type: ignore[index]
