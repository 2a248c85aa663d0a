"""What a trial on a GPU tries, one after the other: a failure is told and kept, and does not stop the next."""

from __future__ import annotations

import traceback
from collections.abc import Callable


class Attempts:
    """Call it with each thing to try."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self.failures: list[str] = []

    def __call__(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # the next may be right
            self.failures.append(f"{what}: {error!s:.200}")
            self._say(f"FAILED: {what}")
            traceback.print_exc()
