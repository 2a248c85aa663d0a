"""One JSON line for every request: who asked what for how long. Never a word of it, unless that is asked for."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..errors import TriuneError
from ..text.vocabulary import TokenBytes
from .records import Record, SequenceRecord

FORMAT, TEXT, DESCRIPTOR = "TRIUNE_LOG_FORMAT", "TRIUNE_LOG_TEXT", "TRIUNE_LOG_FD"  # of the environment
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")


class RequestLog:
    """Where the lines go."""

    def __init__(self, descriptor: int, model: str, *, text: TokenBytes | None = None) -> None:
        """
        Args:
            descriptor: of a file that is open.
            text: for lines with prompt and answer.
        """
        self._descriptor, self._model, self._text = descriptor, model, text
        self._lock = threading.Lock()

    @classmethod
    def of_environment(cls, model: str, token_bytes: TokenBytes | None = None) -> RequestLog | None:
        """The one that the environment asks for; None where it asks for none."""
        if os.environ.get(FORMAT) != "json":
            return None
        text = token_bytes if os.environ.get(TEXT) == "on" else None
        return cls(int(os.environ.get(DESCRIPTOR) or 1), model, text=text)

    def write(self, record: Record) -> None:
        """The line of a request that was answered."""
        self._put(line(record, self._model) | (self._words(record) if self._text is not None else {}))

    def refused(self, request_id: str, error: TriuneError) -> None:
        """The line of a request that came to no generator."""
        self._put({"request_id": request_id, "model": self._model, "error": error.code})

    def _words(self, record: Record) -> dict[str, Any]:
        assert self._text is not None
        answers = [self._text.text([token for part in one.text for token in part]) for one in record.sequences]
        return {"prompt": self._text.text(record.prompt), "answers": answers}

    def _put(self, known: Mapping[str, Any]) -> None:
        said = {name: value for name, value in known.items() if value not in (None, [], "")}
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017  (Python 3.10 has no datetime.UTC)
        raw = (json.dumps({"time": now, "source": "server", **said}) + "\n").encode()
        with self._lock:
            try:
                while raw:
                    raw = raw[os.write(self._descriptor, raw) :]
            except OSError:
                return  # a full disk must not end the serving


def line(record: Record, model: str) -> dict[str, Any]:
    """What a line says, by the names that the gateway's access log has."""
    sequences, options = record.sequences, record.options
    ended = record.ended or time.monotonic()
    first = [one.times.first for one in sequences if one.times and one.times.first]
    queued = [one.times.scheduled - one.times.arrived for one in sequences if one.times and one.times.scheduled]
    return {
        "request_id": record.id,
        "trace_id": trace_id(options.trace),
        "model": model,
        "stream": options.stream,
        "prompt_tokens": len(record.prompt),
        "cached_tokens": max((one.cached for one in sequences), default=0),
        "completion_tokens": sum(one.generated for one in sequences),
        "reasoning_tokens": sum(one.reasoning for one in sequences),
        "queue_s": _rounded(queued),
        "first_token_s": _rounded([at - record.began for at in first]),
        "seconds": round(ended - record.began, 6),
        "finish_reasons": finish_reasons(sequences),
        "error": None if record.error is None else record.error.code,
    }


def trace_id(trace: Sequence[str]) -> str | None:
    """The id of a trace, of what the caller says of it."""
    found = _TRACEPARENT.fullmatch(trace[0]) if trace else None
    return found[1] if found else None


def _rounded(seconds: Sequence[float]) -> float | None:
    return round(min(seconds), 6) if seconds else None


def finish_reasons(sequences: Sequence[SequenceRecord]) -> list[str]:
    """Of the answers that came to their end."""
    return [one.finish_reason for one in sequences if one.finish_reason]
