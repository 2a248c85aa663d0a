"""One JSON line for every request, for operators: who asked what for how long. Never a word of a prompt or an answer."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

HEADER = b"x-request-id"
STDOUT = "-"
DESCRIPTOR = "TRIUNE_LOG_FD"  # of the environment: what stands for the standard output, of the server's supervisor
_ID = re.compile(rb"[!-~]{1,128}")  # printable, without spaces: it goes into headers and logs as it is
_BYTES, _KEPT = 32 << 20, 3  # of a file, and files before it
_SCOPE = "triune.access"


@dataclass(slots=True, kw_only=True)
class Access:
    """What becomes known of one request while it is served."""

    request_id: str
    client: str | None
    method: str
    path: str
    tenant: str | None = None  # whose API key it came with
    status: int = 500
    seconds: float = 0.0
    first_chunk_s: float | None = None  # to the first piece of the answer
    model: str | None = None  # as the client called it
    stream: bool | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish_reasons: list[str] = field(default_factory=list)  # of each choice that came to its end
    trace_id: str | None = None  # of the trace that it belongs to, if any
    error: str | None = None  # the code, or the type, of the error that it was answered with


def begin(scope: Any) -> Access:
    """The record of a request that has just come; its id is the client's own if that sent a usable one."""
    sent = dict(scope["headers"]).get(HEADER, b"")
    client = scope.get("client")
    scope[_SCOPE] = access = Access(
        request_id=request_id(sent),
        client=client[0] if client else None, method=scope["method"], path=scope["path"],
    )  # fmt: skip
    return access


def request_id(sent: bytes) -> str:
    """The id that a request came with if that is a usable one, or a new one."""
    return sent.decode("ascii") if _ID.fullmatch(sent) else uuid.uuid4().hex


def of(scope: Any) -> Access:
    """The record of the request that is being served."""
    found: Access = scope[_SCOPE]
    return found


class JsonFormatter(logging.Formatter):
    """A record of the gateway's own log as one line, by the names that the lines of requests have."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "source": "gateway", "level": record.levelname, "message": record.getMessage()})


class AccessLog:
    """Where the lines go: a file that is set aside when it has grown long, the standard output, or nowhere."""

    def __init__(self, target: str | None, source: str = "gateway") -> None:
        """
        Args:
            target: a file's path, `STDOUT`, or None.
            source: what its lines say they are from.

        Raises:
            OSError: the file cannot be written.
        """
        self._source = source
        self._handler: logging.Handler | None = None
        if target == STDOUT:
            inherited = os.environ.get(DESCRIPTOR)
            self._handler = logging.StreamHandler(os.fdopen(int(inherited), "w", closefd=False) if inherited else sys.stdout)
        elif target is not None:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            self._handler = RotatingFileHandler(target, maxBytes=_BYTES, backupCount=_KEPT, encoding="utf-8")
        if self._handler is not None:
            self._handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk must not end the serving

    def write(self, access: Access) -> None:
        """Adds the line of a request that has ended; what is not known of it is left out."""
        if self._handler is None:
            return
        known = {name: value for name, value in asdict(access).items() if value not in (None, [], "")}
        known |= {"seconds": round(access.seconds, 6)}
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "source": self._source, **known})
        self._handler.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
