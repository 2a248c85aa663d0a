"""The chat page and its files: plain HTML, CSS and JavaScript, served from memory. Nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

FOLDER = Path(__file__).with_name("web")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("chat.js", "colours.js", "server.js", "store.js", "text.js", "turns.js")
    },
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # ask each time; the tag makes the answer short
}


def router() -> APIRouter:
    """The paths of the page."""
    routes = APIRouter(include_in_schema=False)
    for path, (name, kind) in _FILES.items():
        routes.add_api_route(path, _sender((FOLDER / name).read_bytes(), kind), methods=["GET"])
    return routes


def _sender(content: bytes, kind: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    headers = HEADERS | {"etag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return send
