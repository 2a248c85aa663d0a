"""Where Triton finds a repository and its backends: a folder whose path its shell takes.

Triton's Python backend starts each model's process by a line for bash, with paths as they are: a space or a parenthesis in one
ends it. A run folder with such a path is reached by a link elsewhere.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .binaries import Binaries
from .options import ServerOptions

_TAKEN = re.compile(r"[A-Za-z0-9_./+,@%=-]+")  # paths that bash leaves as they are


@contextmanager
def mounted(binaries: Binaries, options: ServerOptions) -> Iterator[tuple[Binaries, ServerOptions]]:
    """The same, by paths that Triton can use for as long as the `with` block."""
    repository = options.repository.resolve()
    if _TAKEN.fullmatch(f"{repository}{binaries.backends.absolute()}"):
        yield dataclasses.replace(binaries, backends=binaries.backends.absolute()), options
        return
    with tempfile.TemporaryDirectory(prefix="triune-", dir=_plain_folder()) as name:
        links = {"repository": repository, "backends": binaries.backends.resolve()}
        for link, target in links.items():
            (Path(name) / link).symlink_to(target)
        yield (
            dataclasses.replace(binaries, backends=Path(name) / "backends"),
            dataclasses.replace(options, repository=Path(name) / "repository"),
        )


def _plain_folder() -> str | None:
    """None: the system's own choice will do."""
    return None if _TAKEN.fullmatch(tempfile.gettempdir()) else "/tmp"
