"""A grammar that takes long keeps its own answer waiting and nobody else's. Run: pytest tests/runtime/test_slow_grammars.py"""

from __future__ import annotations

import dataclasses
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fakes.constrained import Model
from fakes.runtime import chunks_of, run_out
from triune_runtime.constraints import compiling, grammar
from triune_runtime.constraints import pool as pool_module
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.constraints.grammar import Found
from triune_runtime.constraints.guide import Guide
from triune_runtime.constraints.pool import Lane, Pool
from triune_runtime.errors import Overloaded, RequestError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.request import Chunk, Event, Request
from triune_runtime.starting import step_loop
from triune_runtime.targets.fake.runner import FakeRunner

WORDS: Guide = ("regex", "([a-z]{1,4} ){6}")


class Gate:
    """What the library would work out next takes until it is opened."""

    def __init__(self) -> None:
        self.shut = False
        self._opened = threading.Event()
        self._of: Callable[..., Found] = Found.of

    def of(self, *arguments: Any) -> Found:
        if self.shut:
            self._opened.wait(60)
        return self._of(*arguments)

    def open(self) -> None:
        self.shut = False
        self._opened.set()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), thinks=False)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(grammar.Found, "of", made.of)
    yield made
    made.open()


def engine_of(model: Model) -> StepLoop:
    return step_loop(model.manifest, FakeRunner(model.manifest.vocab_size, model.manifest.stop_token_ids), model.table)


def until_ended(engine: StepLoop, *keys: int) -> list[Event]:
    """The events up to the last ones of these."""
    events, left = list[Event](), set(keys)
    for _ in range(5000):
        events += engine.step()
        left -= {event.key for event in events if event.last}
        if not left:
            return events
    raise AssertionError(f"{left} do not end")


def test_others_go_on_while_it_is_worked_out_and_every_answer_is_the_same(model: Model, gate: Gate) -> None:
    requests = [model.request(1, WORDS), model.request(2, WORDS), model.request(3, max_tokens=40, ignore_eos=True)]
    expected = [chunk.cut.token_ids for chunk in model.answers(*requests)]
    engine = engine_of(model)
    for request in requests:
        model.submit(engine, request)
    gate.shut = True
    events = until_ended(engine, 3)
    assert [event.key for event in events if event.last] == [3]
    gate.open()
    events += run_out(engine)
    assert [chunks_of(events, key)[0].cut.token_ids for key in (1, 2, 3)] == expected


def test_an_answer_that_is_complete_with_its_last_token_has_stopped_however_long_that_took(model: Model, gate: Gate) -> None:
    (whole,) = model.answers(model.request(1, ("regex", "[a-z]{12}")))
    request = model.request(1, ("regex", "[a-z]{12}"), max_tokens=whole.new_tokens)
    (prompt,) = model.answers(request)
    engine = engine_of(model)
    model.submit(engine, request)
    events = list[Event]()
    while not any(event.last for event in events):  # every token after the first takes long
        gate.shut = True
        events += engine.step()
        gate.open()
        gate._opened.clear()
        events += engine.step()
    (chunk,) = chunks_of(events, 1)
    assert (chunk.finish_reason, model.text(chunk)) == (prompt.finish_reason, model.text(prompt)) == ("stop", model.text(whole))


@pytest.mark.parametrize("limit", ["TOKEN_SECONDS", "ANSWER_SECONDS"])
def test_who_waits_longer_than_a_grammar_may_take_is_refused(
    model: Model, gate: Gate, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(grammar, limit, 0.05)
    engine = engine_of(model)
    model.submit(engine, dataclasses.replace(model.request(1, WORDS), guide_input="response_format"))
    engine.submit(model.request(2, max_tokens=40, ignore_eos=True))
    gate.shut = True
    last = {event.key: event.item for event in until_ended(engine, 1, 2) if event.last}
    refused = last[1]
    assert isinstance(refused, RequestError) and "takes too long" in str(refused) and refused.hint
    assert refused.param == "response_format"
    assert isinstance(last[2], Chunk)
    assert not engine.has_work


def test_who_is_aborted_while_it_waits_is_answered_at_once(model: Model, gate: Gate) -> None:
    engine = engine_of(model)
    model.submit(engine, model.request(1, WORDS))
    gate.shut = True
    for _ in range(20):
        engine.step()
    (event,) = engine.abort(1)
    assert isinstance(event.item, Chunk) and event.item.finish_reason == "cancelled" and not engine.has_work
    engine.scheduler.check()


def answers(compiler: ConstraintCompiler, *requests: Request) -> dict[int, Any]:
    """What the guide of each request becomes, as it comes."""
    found: dict[int, Any] = {}
    for request in requests:
        assert request.params.guide is not None

        def done(made: Any, key: int = request.key) -> None:
            found[key] = made

        compiler.submit(request.params.guide, request, done)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it does not come")


def test_a_guide_is_compiled_beside_others_that_take_long_and_those_are_refused(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, go_on = ConstraintCompiler(model.manifest, model.table), threading.Event()
    make = compiler.make

    def slow(guide: Guide, request: Request) -> Any:
        if "slow" in guide[1]:
            go_on.wait(60)
        return make(guide, request)

    monkeypatch.setattr(compiler, "make", slow)
    found = answers(compiler, *(model.request(key, ("regex", f"slow{key}")) for key in range(1, 6)))
    quick = answers(compiler, model.request(6, ("regex", "quick")))
    wait_for(lambda: quick)
    assert not isinstance(quick[6], Exception) and not found
    monkeypatch.setattr(compiling, "_SECONDS", 0.2)
    late = answers(compiler, dataclasses.replace(model.request(7, ("regex", "slow")), guide_input="guided_decoding"))
    wait_for(lambda: late)
    assert isinstance(late[7], RequestError) and "takes more than" in str(late[7])
    assert (late[7].code, late[7].param) == ("too_large", "guided_decoding")
    go_on.set()
    wait_for(lambda: len(found) == 5)
    compiler.close()


def test_a_guide_that_nobody_gets_to_compile_may_be_sent_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, go_on = ConstraintCompiler(model.manifest, model.table), threading.Event()
    monkeypatch.setattr(compiler, "make", lambda guide, request: go_on.wait(60))
    first = answers(compiler, model.request(1, ("regex", "a")))
    monkeypatch.setattr(compiling, "_SECONDS", 0.1)
    same = answers(compiler, dataclasses.replace(model.request(2, ("regex", "a")), id="same"))  # waits for the first
    wait_for(lambda: same)
    assert isinstance(same[2], Overloaded)
    go_on.set()
    wait_for(lambda: first)


def test_a_guide_at_its_limits_is_not_kept(model: Model) -> None:
    """Its memory would be."""
    compiler = ConstraintCompiler(model.manifest, model.table)
    failing = compiler.make(("regex", "ab"), model.request(1))
    kept = weakref.ref(compiler._kept["regex", "ab"])
    failing.push(next(token for token, raw in enumerate(model.table) if raw == b"x"))
    assert failing.settle(time.monotonic() + 60) and failing.error
    del failing
    compiler.make(("regex", "cd"), model.request(2))
    gc.collect()
    assert kept() is None and ("regex", "cd") in compiler._kept


def test_jobs_of_a_lane_are_done_in_order_and_one_that_gives_way_holds_up_no_other_lane() -> None:
    pool, lane, go_on, done = Pool("test", threads=1), Lane(), threading.Event(), list[int]()

    def slow() -> None:
        go_on.wait(60)
        done.append(1)

    def failing() -> None:
        raise ValueError("mine")

    first = pool.put(lane, slow)
    behind = pool.put(lane, lambda: done.append(2))
    other = pool.put(Lane(), lambda: done.append(3))
    wait_for(lambda: first.thread)
    assert not other.done
    pool.give_way(first)
    wait_for(lambda: other.done)
    assert done == [3] and not behind.done
    go_on.set()
    wait_for(lambda: behind.done)
    assert done == [3, 1, 2]
    failed = pool.put(lane, failing)
    wait_for(lambda: failed.done)
    assert isinstance(failed.error, ValueError)
    pool.close()


def nice(thread: int | None = None) -> int:
    """How little of the processor a thread gets; by default this one."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id() if thread is None else thread)


def test_however_many_take_long_each_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_MOST_SLOW", 1)
    pool, go_on = Pool("test", threads=3), threading.Event()
    jobs = [pool.put(Lane(), lambda: go_on.wait(60) and None) for _ in range(3)]
    wait_for(lambda: all(job.thread for job in jobs))
    for job in jobs:
        pool.give_way(job)
    assert all(nice(job.thread) > nice() for job in jobs)
    waiting = [pool.put(Lane(), lambda: None) for _ in range(3)]  # one thread was replaced
    wait_for(lambda: all(job.done for job in waiting))
    go_on.set()
    wait_for(lambda: all(job.done for job in jobs))
    pool.close()


def test_who_follows_one_that_gave_way_has_as_much_of_the_processor_as_ever() -> None:
    """A new thread gets what the one has that starts it."""
    pool, found = Pool("test", threads=1), list[int]()
    for _ in range(3):
        go_on, lane = threading.Event(), Lane()
        slow = pool.put(lane, lambda go_on=go_on: go_on.wait(60) and None)  # type: ignore[misc]
        wait_for(lambda slow=slow: slow.thread)  # type: ignore[misc]
        behind = pool.put(lane, lambda: found.append(nice()))
        pool.give_way(slow)
        go_on.set()
        wait_for(lambda behind=behind: behind.done)  # type: ignore[misc]
    assert found == [nice()] * 3
    pool.close()
