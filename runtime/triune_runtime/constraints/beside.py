"""The grammar library at work on threads of its own, as it is not otherwise: where nothing of Python is held meanwhile."""

from __future__ import annotations

import os
import threading

import llguidance
import numpy as np

from .bits import Bits, words
from .pool import STACK_BYTES, THREADS, lower

NICEST = 19  # less of the processor nobody gets: what others leave over
_STACK = "RUST_MIN_STACK"  # of the environment


class Beside:
    """Threads of the library's own. What it does there lets others run; a token that it takes in on ours lets nobody."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, end: int, *, nicer: int) -> None:
        """
        Args:
            end: the library's one token that ends a text.
            nicer: how much less of the processor they get than others.
        """
        starting = threading.Thread(target=self._start, args=(nicer,), name="triune-beside")
        starting.start()
        starting.join()
        self._over = llguidance.LLMatcher(tokenizer, "nothing", log_level=0)  # takes in its end, and does nothing for it
        self._end = end

    def _start(self, nicer: int) -> None:
        """On a thread of its own: those that it starts get as much of the processor as it has."""
        lower(threading.get_native_id(), nicer)
        before = os.environ.get(_STACK)
        os.environ[_STACK] = str(STACK_BYTES)  # the library reads it when it starts its first thread
        try:
            self._executor = llguidance.LLExecutor(THREADS)
        finally:
            os.environ.pop(_STACK)
            if before is not None:
                os.environ[_STACK] = before

    def consume(self, matcher: llguidance.LLMatcher, token_id: int) -> None:
        """Have a matcher take in a token."""
        # A single one would be taken in on this thread.
        self._executor.consume_token_par([(matcher, token_id), (self._over.deep_copy(), self._end)])

    def mask(self, matcher: llguidance.LLMatcher, size: int) -> Bits:
        """What a matcher says may come next, of `size` tokens."""
        both = np.zeros((2, words(size)), np.uint32)
        matchers = [(matcher, 0), (self._over.deep_copy(), 1)]
        self._executor.unsafe_compute_mask_ptr(matchers, both.ctypes.data, both[0].nbytes, len(both))
        bits: Bits = both[0]
        return bits
