"""The log that docs/kubernetes.md quotes."""

from __future__ import annotations

import time

from kubernetes.binaries import FOLDER

FILE = FOLDER / "log.txt"


def note(what: str, began: float) -> None:
    """Write a line, with the seconds since `began` by time.monotonic."""
    with FILE.open("a") as log:
        log.write(f"{time.monotonic() - began:6.1f} s  {what}\n")
