"""What an answer may look like. This file knows the interface alone; the grammar library is imported by `grammar.py` only."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Constraint(Protocol):
    """The state of one answer whose form is prescribed. Used by the stepping thread alone.

    What may come next is worked out on other threads, from when a token was pushed. Until it is settled, nothing may.
    """

    @property
    def active(self) -> bool:
        """Whether the next token is restricted: not while the model still thinks."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing may follow; False while it is not known."""

    @property
    def error(self) -> str:
        """Why no token can be chosen any more; empty while some can. Also where that takes longer to work out than it may."""

    def settle(self, until: float, *, only_quick: bool = False) -> bool:
        """Wait until it is known what may come next, at most until `until` (`time.monotonic`). Returns whether it is.

        Args:
            only_quick: do not wait where the last one took long.
        """

    def allowed(self, bits: NDArray[np.uint32]) -> None:
        """Write all of `bits`, a word for 32 tokens of the vocabulary: which may come next. See `bits.py`.

        What is beyond the vocabulary in the last word means nothing.
        """

    def push(self, token_id: int) -> None:
        """Take in the answer's next token."""

    def follow(self) -> None:
        """Text that is not restricted comes before: a token may have other bytes where it begins the whole text."""
