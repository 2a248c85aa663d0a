"""What the process asks of the C library's allocator."""

from __future__ import annotations

import contextlib
import ctypes


def return_free_memory() -> None:
    """Hand what was freed back to the system.

    glibc keeps it: tens of megabytes after a tokenizer was read, over a hundred after weights were converted
    for a processor.
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
