"""Text or chat messages -> prompt ids and options. Also serves `tokenize_2d`, whose tensors have a batch dimension."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from triune_runtime.contracts.outputs import DESCRIBED
from triune_runtime.errors import TriuneError
from triune_runtime.manifest import engine_folder
from triune_runtime.serving import pulse
from triune_runtime.serving.prompts import PromptService
from triune_runtime.serving.room import RoomReader
from triune_runtime.serving.tensors import request_parameters, strings, triton_error


class TritonPythonModel:
    """Triton's side of `PromptService`."""

    def initialize(self, args: dict[str, str]) -> None:
        self._folder = engine_folder(args["model_repository"])
        if not args["model_name"].endswith("_2d"):  # which few clients use: it loads when the first one comes
            self._service  # noqa: B018
        self._room = RoomReader(args["model_name"], engine=self._folder)
        self._work = pulse.begin()

    @functools.cached_property
    def _service(self) -> PromptService:
        return PromptService.load(self._folder)

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        with self._work:
            return self._answer(request)

    def _answer(self, request: Any) -> Any:
        try:
            tensors = {t.name(): t.as_numpy() for t in request.inputs()}
            if DESCRIBED.keys().isdisjoint(wanted := request.requested_output_names()):  # it goes on to generate
                self._room.check(lambda: tensors)
            input_ids, options = self._service.prompts(
                tensors, request_parameters(request.parameters), lambda: request.trace().get_context()
            )
            described = self._service.described(input_ids, wanted)
        except TriuneError as error:
            if self._service.log is not None:
                self._service.log.refused(request.request_id(), error)
            return pb_utils.InferenceResponse(error=triton_error(error, pb_utils.TritonError))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("input_ids", input_ids.astype(np.int32)),
                pb_utils.Tensor("options", strings(*(row.to_json() for row in options))),
                *(pb_utils.Tensor(name, array) for name, array in described.items()),
            ]
        )
