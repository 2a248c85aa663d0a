"""What can go wrong in a build, always with the remedy."""

from __future__ import annotations

from triune_runtime.errors import TriuneError

_MOST = 2000  # characters of a message: what a file says may be megabytes


def option(name: str, value: object = "") -> str:
    """How to say a setting to `triune` and to make, for hints, e.g. `--max-length 512 (make: MAX_LENGTH=512)`."""
    said = f" {value}" if value != "" else ""
    return f"--{name.replace('_', '-')}{said} (make: {name.upper()}={value if value != '' else '...'})"


class BuildError(TriuneError):
    """A build cannot go on. `hint` says what the user can do about it.

    What files say reaches messages: control characters are shown as escapes, and a message that would fill screens is cut.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(printable(message), printable(hint) if hint else hint)


def printable(text: str, most: int = _MOST) -> str:
    """`text` with escapes in place of what a terminal would act on, and at most `most` characters of it."""
    shown = text if len(text) <= most else f"{text[:most]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def quoted(value: object, most: int = 80) -> str:
    """A value from a file as messages show it."""
    try:
        shown = repr(value)
    except RecursionError:  # which a file that could just be read may be nested for
        shown = "a value of a thousand levels"
    return shown if len(shown) <= most else f"{shown[:most]}..."
