"""What an endpoint is, and what the description says of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import Response

from ..front import GUARDED
from ..sending import JsonResponse

Responses = Mapping[int | str, dict[str, Any]]

ERRORS: Responses = {
    400: {"description": "the request is wrong, or asks for what is not supported"},
    401: {"description": "no API key, or a wrong one"},
    404: {"description": "no such model"},
    408: {"description": "the body did not come in time"},
    415: {"description": "the body is compressed"},
    413: {"description": "the body is too large"},
    429: {"description": "too many requests at once"},
    500: {"description": "the server failed"},
    503: {"description": "the server is full, or not ready"},
    504: {"description": "the server did not answer in time"},
    "4XX": {"description": "an error in OpenAI's shape, as all others"},  # so that FastAPI does not describe one of its own
}
# An event as a reader of the stream sees it.
_EVENT = {"type": "object", "properties": {"data": {"type": "string", "description": "a chunk as JSON, or [DONE]"}}}
STREAMED: Responses = {
    200: {"description": "the answer; with stream, as events", "content": {"text/event-stream": {"schema": _EVENT}}}
}


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A path and what answers it.

    What begins as `GUARDED` says passes `Front` first, which asks for a key and counts; the rest is open to everyone.

    Attributes:
        answer: takes, by name, the path's parameters, the body as a pydantic model, and `serving: Served`.
        generates: whether it asks the server for an answer: refused where that is full.
        responses: what the description says of its answers besides what holds for all under /v1/.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    answer: Callable[..., Awaitable[Response]]
    response: type[Response] = JsonResponse
    responses: Responses = field(default_factory=dict)
    generates: bool = False

    @property
    def guarded(self) -> bool:
        """Whether it passes `Front`."""
        return self.path.startswith(GUARDED)

    @property
    def label(self) -> str:
        """What metrics call it: its path without parameters."""
        return self.path.partition("/{")[0]
