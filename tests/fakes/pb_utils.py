"""A stand-in for `triton_python_backend_utils`, which exists only inside Triton, and the loading of a model.py with it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FINAL = 1


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class TritonError(Exception):
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE = range(5)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class InferenceResponse:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        assert self.error is None, self.error
        return {t.name(): t.as_numpy() for t in self.output_tensors}


class Sender:
    """A decoupled request's way back; refuses what Triton refuses."""

    def __init__(self) -> None:
        self.sent: list[InferenceResponse] = []
        self.final = False
        self.cancelled = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.final, "a response after the final flag"
        if response is not None:
            self.sent.append(response)
        self.final = bool(flags & FINAL)

    def is_cancelled(self) -> bool:
        assert not self.final, "Triton 2.51 ends with a segmentation fault when it is asked after the final response"
        return self.cancelled


@dataclass
class InferenceRequest:
    arrays: Mapping[str, NDArray[Any]]
    id: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    cancelled: bool = False
    timeout_us: int = 0
    sender: Sender = field(default_factory=Sender)

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self.arrays.items()]

    def request_id(self) -> str:
        return self.id

    def parameters(self) -> str:
        return json.dumps(self.given)

    def timeout(self) -> int:
        return self.timeout_us

    def is_cancelled(self) -> bool:
        return self.cancelled

    def requested_output_names(self) -> list[str]:
        return []

    def get_response_sender(self) -> Sender:
        return self.sender


class InnerResponse:
    """A response to a model's own request."""

    def __init__(self, **arrays: NDArray[Any]) -> None:
        self._arrays = arrays

    def has_error(self) -> bool:
        return False

    def output_tensors(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self._arrays.items()]


class InnerResponses(list[InnerResponse]):
    """The responses to a model's own request, as the iterator that they come in; it can be watched."""


class InnerRequest:
    """A request that a model makes itself; refuses what Triton refuses. Answered by `answers`."""

    made: ClassVar[list[InnerRequest]] = []
    answers: ClassVar[Callable[[], InnerResponses]] = InnerResponses

    def __init__(self, *, parameters: Mapping[str, Any], **fields: Any) -> None:
        for value in parameters.values():
            if not isinstance(value, (bool, int, str)):
                raise TypeError(f"Expect parameters values to have type bool/int/str, found type {type(value)}")
        self.parameters, self.fields = parameters, fields
        self.made.append(self)

    def exec(self, *, decoupled: bool) -> InnerResponses:
        assert decoupled
        return InnerRequest.answers()


class Metric:
    def __init__(self, labels: Mapping[str, str], buckets: list[float] | None = None) -> None:
        self.labels, self.buckets = labels, buckets
        self.value = 0.0
        self.observed: list[float] = []

    def increment(self, by: float) -> None:
        assert by >= 0, "a counter never falls"
        self.value += by

    def set(self, value: float) -> None:
        self.value = value

    def observe(self, value: float) -> None:
        self.observed.append(value)


class MetricFamily:
    COUNTER, GAUGE, HISTOGRAM = range(3)

    def __init__(self, *, name: str, description: str, kind: int) -> None:
        self.name, self.description, self.kind = name, description, kind
        self.metrics: list[Metric] = []

    def Metric(self, *, labels: Mapping[str, str], buckets: list[float] | None = None) -> Metric:  # Triton's name
        assert (buckets is not None) == (self.kind == self.HISTOGRAM), f"buckets of {self.name}"
        self.metrics.append(Metric(labels, buckets))
        return self.metrics[-1]


def text(*values: str) -> NDArray[np.object_]:
    """A STRING tensor."""
    return np.array([value.encode() for value in values], np.object_)


def load_model(repository: Path, name: str) -> Any:
    """The initialized TritonPythonModel of `repository`/`name`, over this fake."""
    fake = ModuleType("triton_python_backend_utils")
    fake.__dict__.update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=lambda output_tensors=(), error=None: InferenceResponse(list(output_tensors), error),
        InferenceRequest=InnerRequest,
        MetricFamily=MetricFamily,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
        get_input_tensor_by_name=lambda request, name: next((t for t in request.inputs() if t.name() == name), None),
    )
    path = repository / name / "1" / "model.py"
    spec = importlib.util.spec_from_file_location(f"{name}_model", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(fake.__name__)
    sys.modules[fake.__name__] = fake
    try:
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules[fake.__name__]
        else:
            sys.modules[fake.__name__] = before
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(repository / name), "model_version": "1", "model_name": name})
    return model
