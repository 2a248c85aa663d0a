"""The supervisor's own log: as text, or a JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """A record as one line, by the names that the lines of requests have."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {"time": when, "source": "supervisor", "level": record.levelname, "message": record.getMessage()}
        return json.dumps(said | ({"exception": self.formatException(record.exc_info)} if record.exc_info else {}))


def configure(log_format: str) -> None:
    """Log on stderr from now on."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
