"""/v1/models: the names that the model is served under, and one of them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..sending import JsonResponse
from ..serving import Served
from .endpoint import Endpoint


async def models(serving: Served) -> Response:
    """The names that the model is served under."""
    longest = await serving.max_model_len()
    return JsonResponse({"object": "list", "data": [_model(serving, name, longest) for name in serving.settings.models]})


async def model(model: str, serving: Served) -> Response:
    """One of them."""
    serving.check_model(model)
    return JsonResponse(_model(serving, model, await serving.max_model_len()))


def _model(serving: Served, name: str, max_model_len: int | None) -> dict[str, Any]:
    """As vLLM has it: `root` is the name that the others are aliases of."""
    return {
        "id": name, "object": "model", "created": serving.started, "owned_by": "triune",
        "root": serving.settings.model, "parent": None, "max_model_len": max_model_len,
    }  # fmt: skip


LIST = Endpoint(method="GET", path="/v1/models", answer=models)
ONE = Endpoint(method="GET", path="/v1/models/{model:path}", answer=model)
