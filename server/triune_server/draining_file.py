"""Where it stands that a server is about to stop; see `draining`. Imports nothing that takes time."""

from __future__ import annotations

from pathlib import Path


def draining_file(run_folder: Path) -> Path:
    """The file that is there from the moment on in which new requests are refused."""
    return run_folder.absolute() / "draining"
