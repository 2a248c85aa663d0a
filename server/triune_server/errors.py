"""What can go wrong with the server, always with the remedy."""

from __future__ import annotations

from triune_runtime.errors import TriuneError


class ServerError(TriuneError):
    """The server cannot be started, found or stopped."""
