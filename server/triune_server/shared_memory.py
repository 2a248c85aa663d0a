"""Whether there is room in shared memory for what Triton hands to its Python processes and back."""

from __future__ import annotations

import shutil
from pathlib import Path

from triune_runtime.command_line import image

from .errors import ServerError

LEAST = 32 << 20  # bytes: 4 MB for each of the models that are Python's, and room to grow
_WHERE = Path("/dev/shm")


def check_shared_memory(where: Path = _WHERE) -> None:
    """Make sure that a server can start.

    Raises:
        ServerError: there is too little of it.
    """
    try:
        size = shutil.disk_usage(where)
    except OSError:
        return  # Triton says what is wrong
    if size.total < LEAST:
        more = "docker run --shm-size=256m" if image() else f"as root: mount -o remount,size=256m {where}"
        raise ServerError(f"{where} holds {size.total >> 20} MB; Triton's processes share at least {LEAST >> 20} MB", more)
