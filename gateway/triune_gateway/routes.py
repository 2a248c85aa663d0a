"""Which ensemble answers for which name. Models that come and go are read from a file, again whenever it changes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from .settings import Settings

LOG = logging.getLogger(__name__)


class Routes:
    """The names that clients may say, and the ensemble behind each."""

    def __init__(self, settings: Settings) -> None:
        self._own = dict.fromkeys(settings.models, settings.model)
        self._file = settings.models_file
        self._seen: object = None
        self._known: Mapping[str, str] = self._own

    def ensembles(self) -> Mapping[str, str]:
        """The ensembles by name, the gateway's own model first."""
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


def _read(text: str) -> dict[str, str]:
    return {str(name): str(one["ensemble"]) for name, one in json.loads(text).items()}
