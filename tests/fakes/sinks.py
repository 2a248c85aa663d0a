"""Sinks that keep what they are sent, runners that wait for a signal, and workers that are always closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fakes.runtime import STOPS, VOCAB
from triune_runtime.generation.loop import StepLoop
from triune_runtime.outbox import Item, Pace
from triune_runtime.request import Chunk, Request, SamplingParams
from triune_runtime.runner import Work
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.worker import Worker

PATIENCE_S = 20.0  # until a test that hangs is called a failure
UNHURRIED = Pace(max_chunks_per_s=float("inf"))


class Client:
    """A sink that keeps what it is sent."""

    def __init__(self, react: Callable[[Client, Item], None] = lambda client, item: None) -> None:
        self.items: list[Item] = []
        self.threads: set[str] = set()
        self.changed = threading.Condition()
        self._react = react

    def __call__(self, item: Item) -> None:
        with self.changed:
            self.items.append(item)
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()
        self._react(self, item)

    @property
    def chunks(self) -> list[Chunk]:
        return [item for item in self.items if isinstance(item, Chunk)]

    @property
    def lasts(self) -> int:
        return sum(not isinstance(item, Chunk) or item.finish_reason is not None for item in self.items)

    def wait(self, until: Callable[[Client], bool] = lambda client: client.lasts > 0) -> Client:
        with self.changed:
            assert self.changed.wait_for(lambda: until(self), PATIENCE_S), f"only {len(self.items)} items came"
        return self

    @property
    def last(self) -> Item:
        return self.wait().items[-1]


class Gated(FakeRunner):
    """Runs only while its gate is open."""

    def __init__(self) -> None:
        super().__init__(VOCAB, STOPS)
        self.gate = threading.Event()
        self.running = threading.Event()

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        self.running.set()
        assert self.gate.wait(PATIENCE_S)
        return super().run(work)


@contextmanager
def working(engine: StepLoop, pace: Pace = UNHURRIED) -> Iterator[Worker]:
    worker = Worker(engine, pace)
    try:
        yield worker
    finally:
        worker.close()
        assert not worker.alive


def request(key: int, max_tokens: int = 10, **fields: Any) -> Request:
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    return Request(key=key, prompt=(3, 4, 2 + key % 20), params=params, **fields)


def hold_until(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S), "held for ever"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
