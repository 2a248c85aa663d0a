"""What can go wrong in a build, always with the remedy."""

from __future__ import annotations

from triune_runtime.errors import TriuneError


def option(name: str, value: object = "") -> str:
    """How to say a setting to `triune` and to make, for hints, e.g. `--max-length 512 (make: MAX_LENGTH=512)`."""
    said = f" {value}" if value != "" else ""
    return f"--{name.replace('_', '-')}{said} (make: {name.upper()}={value if value != '' else '...'})"


class BuildError(TriuneError):
    """A build cannot go on. `hint` says what the user can do about it."""
