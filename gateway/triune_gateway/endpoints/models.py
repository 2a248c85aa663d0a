"""/v1/models: the names that models are served under, and one of them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..sending import JsonResponse
from ..serving import Served
from .endpoint import Endpoint


async def models(serving: Served) -> Response:
    """The names that models are served under."""
    return JsonResponse({"object": "list", "data": [_model(name) for name in serving.routes.ensembles()]})


async def model(model: str, serving: Served) -> Response:
    """One of them."""
    serving.check_model(model)
    return JsonResponse(_model(model))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "triune"}


LIST = Endpoint(method="GET", path="/v1/models", answer=models)
ONE = Endpoint(method="GET", path="/v1/models/{model:path}", answer=model)
