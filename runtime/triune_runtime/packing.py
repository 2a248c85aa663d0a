"""Token ids as bytes: to be checked, compared and hashed at once rather than one by one."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

_TYPE = "i"
TOKEN_BYTES = array(_TYPE).itemsize


def pack(tokens: Sequence[int]) -> bytes:
    """`TOKEN_BYTES` of each token, as the machine's own signed integers.

    Raises:
        OverflowError: one has more.
    """
    return array(_TYPE, tokens).tobytes()
