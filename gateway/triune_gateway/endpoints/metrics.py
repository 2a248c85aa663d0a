"""/metrics: counts for Prometheus."""

from __future__ import annotations

from starlette.responses import Response

from ..metrics import CONTENT_TYPE
from ..serving import Served
from .endpoint import Endpoint


async def show_metrics(serving: Served) -> Response:
    """Counts for Prometheus."""
    return Response(serving.metrics.render(), media_type=CONTENT_TYPE)


ENDPOINT = Endpoint(method="GET", path="/metrics", answer=show_metrics, response=Response)
