"""Chunks of tokens -> text. Keeps nothing between chunks; tells `generate` which it has seen and whose client has left."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from triune_runtime.errors import RequestError
from triune_runtime.manifest import EngineManifest, engine_folder
from triune_runtime.serving import pulse
from triune_runtime.serving.acknowledgements import AcknowledgementSender
from triune_runtime.serving.rendering import rendered
from triune_runtime.serving.tensors import flat, strings, triton_error
from triune_runtime.text.tokenizer import load_token_bytes


class TritonPythonModel:
    """Triton's side of `rendered`."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = engine_folder(args["model_repository"])
        self._token_bytes = load_token_bytes(folder, EngineManifest.load(folder))
        self._acknowledgements = AcknowledgementSender(engine=folder)
        self._work = pulse.begin()

    def execute(self, requests: list[Any]) -> list[Any]:
        with self._work:
            return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        self._acknowledgements.close()

    def _respond(self, request: Any) -> Any:
        token_ids, byte_range, key = (
            flat(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
            for name in ("token_ids", "byte_range", "request_key")
        )
        try:
            texts = rendered(token_ids, byte_range, self._token_bytes)
        except RequestError as error:
            return pb_utils.InferenceResponse(error=triton_error(error, pb_utils.TritonError))
        finally:
            self._acknowledgements.send(key[0], cancelled=request.is_cancelled())
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, strings(*found)) for name, found in texts.items()])
