"""What a load at the limit of the memory finds wrong, over a stand-in for a GPU. Run: pytest tests/bench/test_endurance.py"""

from __future__ import annotations

from typing import Any

import pytest
from bench.gpu.endurance import Endurance
from bench.gpu.mixture import Mixture

from fakes.cuda_engines import HostPaged, cuda_manifest
from triune_runtime.generation.loop import StepLoop
from triune_runtime.manifest import Limits
from triune_runtime.starting import step_loop
from triune_runtime.text.vocabulary import TokenBytes

BLOCKS, VOCABULARY = 24, 40


class Load:
    """A loop with less memory than its sequences can fill, and what is said of it."""

    def __init__(self, max_queue: int = 12) -> None:
        manifest = cuda_manifest(
            VOCABULARY, Limits(max_sequences=6, max_length=48, prefill_chunk=16, max_queue=max_queue), 4, stops=(0,)
        )
        host = HostPaged(manifest, blocks=BLOCKS)
        self.loop: StepLoop = step_loop(manifest, host.runner, TokenBytes([b" a"] * VOCABULARY))
        self.loop.start()
        self.said = list[dict[str, Any]]()
        self.used_mib = 100.0
        self.endurance = Endurance(
            self.loop, Mixture(manifest, longest=48, patience_s=0.02), lambda: self.used_mib, self.said.append
        )

    def run(self, seconds: float = 1.0) -> dict[str, Any]:
        return self.endurance.run(seconds, every_s=0.1)


def test_a_sound_loop_passes_at_the_limit_with_everything_that_a_crowd_does() -> None:
    load = Load()
    verdict = load.run(2.0)
    while not (verdict["aborted"] and verdict["refused"]):  # a slow machine has asked for less; the test's time limit ends this
        verdict = load.run(2.0)
    assert verdict["failures"] == []
    assert verdict["filled"] == [BLOCKS, BLOCKS]
    assert verdict["sent"] == verdict["answered"] + verdict["aborted"] + verdict["refused"]
    assert verdict["answered"] > 20 and verdict["tokens"] > 100
    assert max(line["peak"] for line in load.said) == BLOCKS
    assert max(line["waiting"] for line in load.said) > 0


def test_a_crowd_larger_than_the_queue_comes_one_after_the_other() -> None:
    verdict = Load(max_queue=4).run()
    assert verdict["failures"] == [] and verdict["answered"] > 10


def test_blocks_that_do_not_come_back_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load()
    store = load.loop.scheduler.store
    release, released = store.release, 0

    def leaking(slot: int, *, keep: bool = True) -> None:
        nonlocal released
        released += 1
        if released == 20:
            store._hold(next(iter(store._free)))  # type: ignore[attr-defined]
        release(slot, keep=keep)

    monkeypatch.setattr(store, "release", leaking)
    assert any("blocks are held" in failure for failure in load.run()["failures"])


def test_memory_that_grows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load()
    step = load.loop.step

    def growing() -> Any:
        load.used_mib += 0.5
        return step()

    monkeypatch.setattr(load.loop, "step", growing)
    assert any("gpu_mib grew" in failure for failure in load.run()["failures"])


def test_who_is_never_answered_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load()
    step, lost = load.loop.step, list[int]()

    def losing() -> Any:
        events = step()
        lost.extend(event.key for event in events if event.last and not lost)
        return [event for event in events if event.key not in lost]

    monkeypatch.setattr(load.loop, "step", losing)
    assert any("never answered" in failure for failure in load.run()["failures"])


def test_the_same_seed_draws_the_same_crowd() -> None:
    manifest = cuda_manifest(VOCABULARY, Limits(max_sequences=6, max_length=48, prefill_chunk=16), 4)
    one, other = Mixture(manifest, 48), Mixture(manifest, 48)
    drawn = [one.next() for _ in range(2000)]
    assert drawn == [other.next() for _ in range(2000)]
    requests = [request for coming in drawn if not coming.refused for request in coming.requests]
    assert all(len(r.prompt) + (r.params.max_tokens or 0) <= 48 for r in requests)
    assert any(coming.refused for coming in drawn) and any(len(coming.requests) > 1 for coming in drawn)
    assert any(coming.leaves_after_s is not None for coming in drawn)
