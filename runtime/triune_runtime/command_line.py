"""How every command tells of an error: `error:` and `hint:` on stderr, exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import TriuneError


@contextmanager
def errors_told() -> Iterator[None]:
    """Print an error of our own and end the process with exit code 1; others are bugs and pass through.

    Raises:
        SystemExit: one of our own errors was raised inside.
    """
    try:
        yield
    except TriuneError as error:
        print(f"error: {error.args[0]}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr, flush=True)
        raise SystemExit(1) from error
