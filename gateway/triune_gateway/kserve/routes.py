"""Which requests are passed on. Everything else is answered here: what is not in this table does not exist."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .refusal import Refusal

_NAME = r"[A-Za-z0-9._~:@+-]+"
_MODEL = rf"/v2/models/{_NAME}(?:/versions/{_NAME})?"
_CLOSED = re.compile(
    rf"/v2/(?:repository/.*|systemsharedmemory.*|cudasharedmemory.*|logging|trace/setting|models/{_NAME}/trace/setting)"
)


@dataclass(frozen=True)
class Route:
    """Paths of one kind.

    Attributes:
        method: GET or POST.
        guarded: whether a key is asked for, where there are keys.
        generates: whether a model is asked for an answer: refused where it has just said that it is full.
    """

    method: str
    paths: re.Pattern[str]
    guarded: bool = True
    generates: bool = False


def _route(method: str, paths: str, *, guarded: bool = True, generates: bool = False) -> Route:
    return Route(method, re.compile(paths), guarded, generates)


API = (
    _route("POST", rf"{_MODEL}/(?:generate|generate_stream|infer)", generates=True),
    _route("GET", r"/v2/health/(?:live|ready)", guarded=False),
    _route("GET", rf"{_MODEL}/ready", guarded=False),
    _route("GET", r"/v2/?"),
    _route("GET", r"/v2/models/stats"),
    _route("GET", rf"{_MODEL}(?:/config|/stats)?"),
    _route("POST", r"/v2/repository/index"),  # a list, no more
)
METRICS = (_route("GET", r"/metrics", guarded=False),)


def model_of(path: str) -> str:
    """The model that the path of a route asks, where it asks one."""
    return (path.split("/") + [""] * 4)[3]


def find(routes: tuple[Route, ...], method: str, path: str) -> Route:
    """The route of a request.

    Raises:
        Refusal: there is none.
    """
    fitting = [route for route in routes if route.paths.fullmatch(path)]
    for route in fitting:
        if route.method == method:
            return route
    if fitting:
        raise Refusal(405, "Method Not Allowed")
    if routes is API and _CLOSED.fullmatch(path):
        raise Refusal(403, f"{path} is closed: models, shared memory, traces and logs are controlled by this server alone")
    raise Refusal(404, "Not Found")
