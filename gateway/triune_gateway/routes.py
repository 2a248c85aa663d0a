"""Which ensemble answers for which name. Models that come and go are read from a file, again whenever it changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from .settings import Settings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """Triton's names of the models behind a name that clients say."""

    ensemble: str
    tokenizer: str = "tokenize"  # the model that turns prompts into tokens


class Routes:
    """The names that clients may say, and what is behind each."""

    def __init__(self, settings: Settings) -> None:
        self._own = dict.fromkeys(settings.models, Route(settings.model))
        self._file = settings.models_file
        self._seen: object = None
        self._known: Mapping[str, Route] = self._own

    def known(self) -> Mapping[str, Route]:
        """The routes by name, the gateway's own model first."""
        if self._file is not None:
            try:
                status = self._file.stat()
                if (seen := (status.st_mtime_ns, status.st_ino)) != self._seen:
                    self._known, self._seen = self._own | _read(self._file.read_text("utf-8")), seen
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                if self._seen is not None:  # what was known stays: it was being written, or the server is stopping
                    LOG.warning("%s cannot be read: %r", self._file, error)
                    self._seen = None
        return self._known


def _read(text: str) -> dict[str, Route]:
    return {str(name): Route(str(one["ensemble"]), str(one["tokenizer"])) for name, one in json.loads(text).items()}
