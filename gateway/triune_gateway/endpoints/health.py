"""/health: whether requests can be served now, and two more: whether the process answers, and whether a token comes."""

from __future__ import annotations

from starlette.responses import Response

from ..sending import JsonResponse
from ..serving import Served
from ..trial import NOT_READY
from .endpoint import ERRORS, Endpoint


async def health(serving: Served) -> Response:
    """Whether requests can be served now."""
    if serving.intake.closed:
        return JsonResponse({"status": "stopping"}, 503)
    stalled = serving.settings.stalled_file
    if (stalled is None or not stalled.exists()) and await serving.client.ready():
        return JsonResponse({"status": "ready"})
    return JsonResponse({"status": NOT_READY}, 503)


async def live(serving: Served) -> Response:
    """Whether this process answers, whatever is behind it."""
    return JsonResponse({"status": "live"})


async def deep(serving: Served) -> Response:
    """Whether a token can be generated now, which it tries."""
    if serving.intake.closed:
        return JsonResponse({"status": "stopping"}, 503)
    found = await serving.trial.result(serving.client)
    return JsonResponse({"status": found}, 503 if found == NOT_READY else 200)


READY = Endpoint(method="GET", path="/health", answer=health, responses={503: ERRORS[503]})
READY_TOO = Endpoint(method="GET", path="/health/ready", answer=health, responses={503: ERRORS[503]})
LIVE = Endpoint(method="GET", path="/health/live", answer=live)
DEEP = Endpoint(method="GET", path="/health/deep", answer=deep, responses={503: ERRORS[503]})
