"""The application: which path does what. The work is in `calls.py` (what is asked) and `answering.py` (what comes back)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from . import __version__, page
from .answering import Answer, TextClient
from .calls import chat_calls, completion_calls
from .errors import ApiError
from .front import Front
from .metrics import CONTENT_TYPE, Metrics
from .refused_bodies import of_validation
from .schemas import ChatRequest, CompletionRequest, Generation
from .sending import JsonResponse, error_response
from .settings import Settings
from .shapes import ChatShape, CompletionShape
from .usage import Counts

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request is wrong, or asks for what is not supported"},
    401: {"description": "no API key, or a wrong one"},
    404: {"description": "no such model"},
    413: {"description": "the body is too large"},
    429: {"description": "too many requests at once"},
    500: {"description": "the server failed"},
    503: {"description": "the server is full, or not ready"},
    504: {"description": "the server did not answer in time"},
    "4XX": {"description": "an error in OpenAI's shape, as all others"},  # so that FastAPI does not describe one of its own
}
# An event as a reader of the stream sees it.
_EVENT = {"type": "object", "properties": {"data": {"type": "string", "description": "a chunk as JSON, or [DONE]"}}}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "the answer; with stream, as events", "content": {"text/event-stream": {"schema": _EVENT}}}
}


def create_app(settings: Settings, connect: Callable[[], TextClient]) -> FastAPI:
    """The application.

    Args:
        connect: makes the client of the server behind; called once, in the event loop that serves.
    """
    gateway = _Gateway(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect() as gateway.client:
            yield

    app = FastAPI(
        title="Triune", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # those pages load scripts from elsewhere
        exception_handlers={
            ApiError: _on_api_error, RequestValidationError: _on_invalid, HTTPException: _on_http_error, Exception: _on_failure,
        },
    )  # fmt: skip
    app.include_router(gateway.router())
    app.include_router(page.router())
    app.add_middleware(Front, settings=settings, metrics=gateway.metrics)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )  # fmt: skip
    return app


class _Gateway:
    """The endpoints, and what they share."""

    client: TextClient

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()

    def router(self) -> APIRouter:
        router = APIRouter()
        described = [Depends(HTTPBearer(auto_error=False))] if self._settings.api_keys else []  # `Front` is who checks them
        api = APIRouter(prefix="/v1", dependencies=described, responses=_ERRORS)
        api.add_api_route("/chat/completions", self.chat, methods=["POST"], response_class=JsonResponse, responses=_STREAMED)
        api.add_api_route("/completions", self.complete, methods=["POST"], response_class=JsonResponse, responses=_STREAMED)
        api.add_api_route("/models", self.models, methods=["GET"], response_class=JsonResponse)
        api.add_api_route("/models/{model:path}", self.model, methods=["GET"], response_class=JsonResponse)
        router.include_router(api)
        unready: dict[int | str, dict[str, Any]] = {503: _ERRORS[503]}
        router.add_api_route("/health", self.health, methods=["GET"], response_class=JsonResponse, responses=unready)
        router.add_api_route("/metrics", self.show_metrics, methods=["GET"], response_class=Response)
        return router

    async def chat(self, body: ChatRequest) -> Response:
        """Answers a conversation."""
        self._check_model(body.model)
        calls = chat_calls(body, most=self._settings.max_choices)
        top = (body.top_logprobs or 0) if body.logprobs else None
        shape = ChatShape(body.model, logprobs=top, **_usage_wanted(body))
        return Answer(self.client, calls, shape, Counts(), self.metrics, stream=bool(body.stream))

    async def complete(self, body: CompletionRequest) -> Response:
        """Continues one or more texts."""
        self._check_model(body.model)
        calls = completion_calls(body, most=self._settings.max_choices)
        echoed = [call.prompt if body.echo else "" for call in calls for _ in range(call.choices)]
        shape = CompletionShape(body.model, logprobs=body.logprobs, echoed=echoed, **_usage_wanted(body))
        return Answer(self.client, calls, shape, Counts(), self.metrics, stream=bool(body.stream))

    async def models(self) -> Response:
        """The names that the model is served under."""
        return JsonResponse({"object": "list", "data": [_model(name) for name in self._settings.models]})

    async def model(self, model: str) -> Response:
        """One of them."""
        self._check_model(model)
        return JsonResponse(_model(model))

    async def health(self) -> Response:
        """Whether requests can be served now."""
        if await self.client.ready():
            return JsonResponse({"status": "ready"})
        return JsonResponse({"status": "not ready"}, 503)

    async def show_metrics(self) -> Response:
        """Counts for Prometheus."""
        return Response(self.metrics.render(), media_type=CONTENT_TYPE)

    def _check_model(self, name: str) -> None:
        if name not in self._settings.models:
            known = ", ".join(self._settings.models)
            raise ApiError(404, f"The model '{name}' does not exist; served here: {known}.", code="model_not_found")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "triune"}


def _usage_wanted(body: Generation) -> dict[str, bool]:
    options = body.stream_options
    return {
        "usage": bool(options and (options.include_usage or options.continuous_usage_stats)),
        "running_usage": bool(options and options.continuous_usage_stats),
    }


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(of_validation(error, request.headers.get("content-type", "")))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code in (404, 405):
        message = f"Invalid URL ({request.method} {request.url.path})"
    elif error.status_code == 400:
        message = "The body of the request could not be read as JSON."
    response = error_response(ApiError(error.status_code, message))
    response.headers.update(error.headers or {})
    return response


async def _on_failure(request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, "The server failed; its log says why.", kind="server_error"))
