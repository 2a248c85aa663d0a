"""Files that say that a server is about to stop, or hangs; see `draining` and `stalled`. Imports nothing that takes time."""

from __future__ import annotations

from pathlib import Path


def draining_file(run_folder: Path) -> Path:
    """The file that is there from the moment on in which new requests are refused."""
    return run_folder.absolute() / "draining"


def stalled_file(run_folder: Path) -> Path:
    """The file that is there while a process gives no sign of life, and says which."""
    return run_folder.absolute() / "stalled"
