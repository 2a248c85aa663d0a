"""Whether the server is about to stop: whoever stops it writes a file, which holds the time at which all must have ended."""

from __future__ import annotations

import math
import os

VARIABLE = b"TRIUNE_DRAINING"  # of the environment: the file's path


class Draining:
    """What the file says. Without one, the server is told by Triton alone."""

    def __init__(self, file: bytes = b"") -> None:
        self._file = file

    @classmethod
    def of_environment(cls) -> Draining:
        """By the file that the environment names. Bytes: its path may hold what Python's locale in Triton cannot say."""
        return cls(os.environb.get(VARIABLE, b""))

    @property
    def begun(self) -> bool:
        """Whether new requests are to be refused."""
        return bool(self._file) and os.path.exists(self._file)  # noqa: PTH110  # bytes

    @property
    def ends_at(self) -> float:
        """When what is left must end, in seconds since the epoch; infinity: nothing is said."""
        try:
            with open(self._file, "rb") as file:  # noqa: PTH123
                return float(file.read())
        except (OSError, ValueError):
            return math.inf
