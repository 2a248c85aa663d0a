"""Where Triton finds a repository and its backends: a folder whose path its shell takes.

Triton's Python backend starts each model's process by a line for bash, with paths as they are: a space or a parenthesis in one
ends it. The Python in there knows no path beyond ASCII. What has such a path is reached by links elsewhere.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triune_runtime import errors

from .binaries import Binaries
from .leftovers import temporary_folder
from .options import ServerOptions
from .view import ENGINES

_RUNTIME = Path(errors.__file__).resolve().parent
_TAKEN = re.compile(r"[A-Za-z0-9_./+,@%=-]+")  # paths that bash leaves as they are


@contextmanager
def mounted(binaries: Binaries, options: ServerOptions, mark: str) -> Iterator[tuple[Binaries, ServerOptions]]:
    """The same, by paths that Triton can use for as long as the `with` block.

    Args:
        mark: see `leftovers.mark_of`.
    """
    repository = options.repository.absolute()
    if _TAKEN.fullmatch(f"{repository}{binaries.backends.absolute()}{_RUNTIME}{sys.prefix}"):
        yield dataclasses.replace(binaries, backends=binaries.backends.absolute()), options
        return
    with temporary_folder(mark, plain=_TAKEN.fullmatch(tempfile.gettempdir()) is None) as folder:
        (folder / "repository").symlink_to(repository)
        (folder / ENGINES).symlink_to(repository.parent / ENGINES)
        backend = folder / "backends" / "python"
        backend.mkdir(parents=True)
        for file in (binaries.backends / "python").resolve().iterdir():
            (backend / file.name).symlink_to(file)
        (backend / _RUNTIME.name).symlink_to(_RUNTIME)  # models look for modules here, too
        yield (
            dataclasses.replace(binaries, backends=folder / "backends"),
            dataclasses.replace(options, repository=folder / "repository"),
        )
