"""/health: whether requests can be served now."""

from __future__ import annotations

from starlette.responses import Response

from ..sending import JsonResponse
from ..serving import Served
from .endpoint import ERRORS, Endpoint


async def health(serving: Served) -> Response:
    """Whether requests can be served now."""
    if await serving.client.ready():
        return JsonResponse({"status": "ready"})
    return JsonResponse({"status": "not ready"}, 503)


ENDPOINT = Endpoint(method="GET", path="/health", answer=health, responses={503: ERRORS[503]})
