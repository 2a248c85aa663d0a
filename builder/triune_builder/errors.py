"""What can go wrong in a build, always with the remedy."""

from __future__ import annotations

from triune_runtime.errors import TriuneError


class BuildError(TriuneError):
    """A build cannot go on. `hint` says what the user can do about it."""
