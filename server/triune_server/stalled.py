"""Whether a process of the server gives no sign of life: a file says so to whoever asks for readiness.

It is there long before that process is ended for it, so that nobody is sent to a server that cannot answer.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .draining_file import stalled_file


class Stalled:
    """The file of one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self.file = stalled_file(run_folder)
        self._told: str | None = None

    def tell(self, what: str | None) -> None:
        """Which process it is; None: none is."""
        if what == self._told:
            return
        self._told = what
        if what is None:
            self.clear()
        else:
            with suppress(OSError):  # a full disk has room for its name
                self.file.write_text(f"{what}\n", "utf-8")

    def clear(self) -> None:
        """All get on, as far as is known."""
        self._told = None
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
