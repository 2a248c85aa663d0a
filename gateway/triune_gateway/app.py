"""The application, built from the table of endpoints, and how it says that a request failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from . import __version__, page
from .access_log import AccessLog
from .answering import TextClient
from .endpoints import ENDPOINTS
from .endpoints.endpoint import ERRORS, Endpoint
from .errors import ApiError
from .front import Front
from .refused_bodies import of_unreadable, of_validation
from .sending import error_response
from .serving import Serving
from .settings import Settings
from .tls import Tls


def create_app(
    settings: Settings, connect: Callable[[], TextClient], endpoints: Sequence[Endpoint] = ENDPOINTS, tls: Tls | None = None
) -> FastAPI:
    """The application.

    Args:
        connect: makes the client of the server behind; called once, in the event loop that serves.
        tls: what it is served over, for its metrics.

    Raises:
        OSError: the access log cannot be written.
    """
    serving = Serving(settings)
    if tls is not None:
        serving.metrics.of_certificate(lambda: tls.loaded.certificate.not_after)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connect() as serving.client:
            yield
        if serving.tracer is not None:
            serving.tracer.close()

    app = FastAPI(
        title="Triune", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # those pages load scripts from elsewhere
        redirect_slashes=False,  # they name this server as it knows itself, not as a proxy before it is known
        exception_handlers={
            ApiError: _on_api_error, RequestValidationError: _on_invalid, HTTPException: _on_http_error, Exception: _on_failure,
        },
    )  # fmt: skip
    app.state.serving = serving
    key = [Depends(HTTPBearer(auto_error=False))] if settings.api_keys else []  # for the description: `Front` is who asks
    for one in endpoints:
        app.add_api_route(
            one.path, one.answer, methods=[one.method], response_class=one.response,
            responses={**(ERRORS if one.guarded else {}), **one.responses}, dependencies=key if one.guarded else [],
        )  # fmt: skip
    app.include_router(page.router())
    labels = {one.label for one in endpoints if one.guarded}
    log = AccessLog(settings.access_log)
    app.add_middleware(
        Front, settings=settings, metrics=serving.metrics, log=log, intake=serving.intake, tracer=serving.tracer,
        endpoints=sorted(labels), gates=serving.gates, routes=serving.routes,
        generating={one.path for one in endpoints if one.generates},
    )  # fmt: skip
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"], expose_headers=["x-request-id", "retry-after"],
        )  # fmt: skip
    return app


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error, request.url.path)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(of_validation(error, request.headers.get("content-type", "")), request.url.path)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code in (404, 405):
        message = f"Invalid URL ({request.method} {request.url.path})"
    elif error.status_code == 400:
        message = of_unreadable(error.__cause__).message
    response = error_response(ApiError(error.status_code, message), request.url.path)
    response.headers.update(error.headers or {})
    return response


async def _on_failure(request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, "The server failed; its log says why.", kind="server_error"), request.url.path)
