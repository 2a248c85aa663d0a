"""Memory of slots that nobody needs goes back to the system. Run: pytest tests/runtime/test_idle_memory.py"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fakes.prefixes import PROMPT, make, request, serve
from fakes.runtime import chunks_of, make_engine
from triune_runtime import worker as workers
from triune_runtime.generation.loop import StepLoop
from triune_runtime.kv.names import Prompt
from triune_runtime.kv.slots import Sharing, SlotStore
from triune_runtime.targets.cpu.session import release, untouched
from triune_runtime.targets.fake.runner import FakeRunner
from triune_runtime.worker import Worker

MIB = 1 << 20
WHOLE = (4, 2, 4096, 512)  # slots, heads, positions, numbers: 16 MiB a slot


def memory() -> int:
    """What the process has of its own, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def test_the_process_gets_smaller_and_what_is_needed_stays() -> None:
    buffer = untouched(WHOLE, "float32")
    before = memory()
    buffer[:] = 1
    assert memory() - before > 60 * MIB
    release(buffer[1], 0)
    release(buffer[2], 0)
    release(buffer[3], 1000)
    assert memory() - before < 23 * MIB
    assert (buffer[0] == 1).all() and (buffer[3, :, :1000] == 1).all()
    assert not buffer[1:3].any() and not buffer[3, :, 1010:].any()
    buffer[1:] = 2  # and it can be written again
    assert (buffer[1:] == 2).all() and (buffer[0] == 1).all()


def test_buffers_that_share_a_page_keep_what_is_not_theirs() -> None:
    buffer = untouched((5, 3, 7, 33), "float32")
    buffer[:] = 1
    release(buffer[2], 0)
    release(buffer[4], 3)
    assert (buffer[[0, 1, 3]] == 1).all() and (buffer[4, :, :3] == 1).all()


def test_what_prompts_can_find_is_kept_for_minutes_and_what_they_cannot_for_a_moment() -> None:
    store = SlotStore(2, 64, Sharing(unit=8, chunk=16))
    prompt = tuple(range(20))
    (slot,) = store.admit(Prompt(prompt), 1).slots
    store.settle(slot, prompt, 16, together=True)
    assert store.idle(0.0) == [] and store.idle(1000.0) == [(1 - slot, 0)]  # in use; the other one is not
    store.release(slot)
    assert store.idle(2000.0) == []
    assert store.idle(2010.0) == [(slot, 16)] and store.idle(2020.0) == []
    assert store.admits(Prompt(prompt), 1) == 16
    assert store.idle(2299.0) == [] and store.idle(2301.0) == [(slot, 0)] and store.idle(9999.0) == []
    assert store.admits(Prompt(prompt), 1) == 0
    store.check([])


def test_a_prefix_that_is_found_is_kept_for_longer() -> None:
    store = SlotStore(3, 64, Sharing(unit=8, chunk=16))
    prompt = tuple(range(40))
    (slot,) = store.admit(Prompt(prompt), 1).slots
    for end in (16, 32, 40):
        store.settle(slot, prompt, end, together=True)
    store.release(slot)
    store.idle(0.0)
    other = (*prompt[:16], *range(100, 110))
    (target,) = store.admit(Prompt(other), 1).slots
    assert target != slot and store.idle(1000.0) == []  # a copy is still to be made
    assert store.orders()
    assert (slot, 0) not in store.idle(1000.0) and store.admits(Prompt(prompt), 1) == 32
    store.release(target)
    store.idle(1001.0)
    assert (slot, 0) in store.idle(1400.0)


class Giving(FakeRunner):
    """Says what is given back."""

    def __init__(self, loop: StepLoop) -> None:
        super().__init__(loop.manifest.vocab_size, loop.manifest.stop_token_ids)
        self.given: list[tuple[int, int]] = []
        self.came = threading.Event()

    def give_back(self, slot: int, length: int) -> None:
        self.given.append((slot, length))
        self.came.set()


def test_an_answer_after_memory_was_given_back_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, now = make("slots"), [0.0]
    loop.runner = runner = Giving(loop)
    loop._stepper._runner = runner  # type: ignore[attr-defined]
    loop._clock = lambda: now[0]
    expected = chunks_of(serve(loop, request(1)), 1)[-1].cut
    for seconds in (0.0, 20.0, 1000.0):
        now[0] += seconds
        loop.rest()
    assert {slot for slot, length in runner.given if not length} == set(range(4))
    assert chunks_of(serve(loop, request(2)), 2)[-1].cut == expected
    assert PROMPT


def test_a_worker_looks_for_it_while_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_REST_S", 0.01)
    loop = make_engine()
    loop.runner = runner = Giving(loop)
    worker = Worker(loop)
    assert runner.came.wait(30)
    worker.close()
