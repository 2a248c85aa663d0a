"""/metrics: counts for Prometheus."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from ..serving import Served
from .endpoint import Endpoint


async def show_metrics(serving: Served, request: Request) -> Response:
    """Counts for Prometheus."""
    text, form = serving.metrics.render(request.headers.get("accept", ""))
    return Response(text, media_type=form)


ENDPOINT = Endpoint(method="GET", path="/metrics", answer=show_metrics, response=Response)
