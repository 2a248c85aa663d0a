"""Chunks of tokens -> text. Keeps nothing between chunks; tells `generate` which it has seen and whose client has left."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from triune_runtime.errors import RequestError
from triune_runtime.manifest import EngineManifest
from triune_runtime.serving.acknowledgements import AcknowledgementSender
from triune_runtime.serving.tensors import engine_folder, error_text, flat, strings
from triune_runtime.text.cutter import render
from triune_runtime.text.tokenizer import load_token_bytes


class TritonPythonModel:
    """Triton's side of `render`."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = engine_folder(args["model_repository"])
        self._token_bytes = load_token_bytes(folder, EngineManifest.load(folder))
        self._acknowledgements = AcknowledgementSender()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        self._acknowledgements.close()

    def _respond(self, request: Any) -> Any:
        token_ids, byte_range, key = (
            flat(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
            for name in ("token_ids", "byte_range", "request_key")
        )
        self._acknowledgements.send(key[0], cancelled=request.is_cancelled())
        size = len(self._token_bytes)
        if len(byte_range) not in (2, 4) or not all(0 <= token < size for token in token_ids):  # only in direct requests
            error = RequestError(
                f"token_ids are {token_ids[:8]} and byte_range {byte_range[:8]}; ids from 0 to {size - 1:,} and 2 or 4 numbers "
                "are expected",
                "send what generate gives",
            )
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error_text(error), pb_utils.TritonError.INVALID_ARG))
        # The answer's range, and then the thinking's where that is kept apart.
        ranges = zip(("text_output", "reasoning_output"), (byte_range[:2], byte_range[2:]), strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, strings(render(token_ids, *part, self._token_bytes))) for name, part in ranges if part]
        )
