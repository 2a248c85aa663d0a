"""Prompt ids and options -> chunks of tokens, streamed. All work is done by the runtime's worker."""

from __future__ import annotations

import os
from typing import Any

import triton_python_backend_utils as pb_utils

from triune_runtime.errors import TriuneError
from triune_runtime.manifest import engine_folder
from triune_runtime.options.values import text
from triune_runtime.serving.draining import Draining
from triune_runtime.serving.generation import GenerationService
from triune_runtime.serving.room import link_of
from triune_runtime.serving.tensors import Arrays, flat, triton_error

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """Triton's side of `GenerationService`."""

    def initialize(self, args: dict[str, str]) -> None:
        prefix_caching = os.environ.get("TRIUNE_PREFIX_CACHING", "on") != "off"
        shares = os.environ.get("TRIUNE_FAIR_SHARE", "off")
        folder = engine_folder(args["model_repository"])
        self._service = GenerationService(
            folder,
            pb_utils.MetricFamily,
            prefix_caching=prefix_caching,
            client_sequences=None if shares == "off" else 0 if shares == "on" else int(shares),
            draining=Draining.of_environment(),
            room=link_of(args["model_name"]),
        )

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            with self._service.work:
                self._start(request)

    def finalize(self) -> None:
        self._service.close()

    def _start(self, request: Any) -> None:
        sender = request.get_response_sender()

        def reply(answer: Arrays | TriuneError, last: bool) -> None:
            sender.send(_response(answer), flags=FINAL if last else 0)

        try:
            self._service.start(
                pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy().reshape(-1),
                [text("options", row) for row in flat(pb_utils.get_input_tensor_by_name(request, "options").as_numpy())],
                request_id=request.request_id(),
                timeout_us=request.timeout(),
                left=sender.is_cancelled,
                reply=reply,
                parameters=request.parameters,
            )
        except TriuneError as error:
            reply(error, True)


def _response(answer: Arrays | TriuneError) -> Any:
    if isinstance(answer, TriuneError):
        return pb_utils.InferenceResponse(error=triton_error(answer, pb_utils.TritonError))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in answer.items()])
