"""/v1/models: the names that models are served under, and one of them."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from starlette.responses import Response

from ..sending import JsonResponse
from ..serving import Served, Serving
from .endpoint import Endpoint


async def models(serving: Served) -> Response:
    """The names that models are served under."""
    names = list(serving.routes.known())
    return JsonResponse({"object": "list", "data": await asyncio.gather(*(_model(name, copy.copy(serving)) for name in names))})


async def model(model: str, serving: Served) -> Response:
    """One of them."""
    return JsonResponse(await _model(model, serving))


async def _model(name: str, serving: Serving) -> dict[str, Any]:
    """As vLLM has it: `root` is the name that the others of one model are aliases of."""
    serving.check_model(name)
    return {
        "id": name, "object": "model", "created": serving.started, "owned_by": "triune",
        "root": serving.routes.known()[name].ensemble, "parent": None, "max_model_len": await serving.max_model_len(),
    }  # fmt: skip


LIST = Endpoint(method="GET", path="/v1/models", answer=models)
ONE = Endpoint(method="GET", path="/v1/models/{model:path}", answer=model)
