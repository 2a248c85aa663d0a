"""Asks for several answers at the same moment, a thread each, as many clients at once would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from .timing import Stream


def ask_together(ask: Callable[[str], Iterator[int]], prompts: Sequence[str]) -> list[Stream]:
    """The streams of `ask(prompt)`, which yields the number of tokens of every piece as it arrives.

    Raises:
        Exception: whatever the first `ask` that failed raised.
    """
    start = threading.Barrier(len(prompts))

    def run(prompt: str) -> Stream:
        start.wait()
        sent = time.perf_counter()
        return Stream(sent, tuple((time.perf_counter(), tokens) for tokens in ask(prompt) if tokens))

    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(run, prompts))
