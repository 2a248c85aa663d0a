"""Steps are recorded while somebody asks, and only then; and nothing else changes. Run: pytest tests/runtime/test_phases.py"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.runtime import make_engine, run_alone, text_of
from fakes.sinks import Client, request, working
from triune_runtime.generation.loop import StepLoop
from triune_runtime.generation.phases import Recording
from triune_runtime.recorded import COUNTS, LAUNCH, REQUEST, SAMPLE, STEP, TEXT, WAIT, Timed
from triune_runtime.request import Chunk
from triune_runtime.serving import profiling
from triune_runtime.serving.profiling import Profiling
from triune_runtime.worker import Worker


def drained(engine: StepLoop) -> list[Chunk]:
    found = list[Chunk]()
    while engine.has_work:
        found += [event.item for event in engine.step() if isinstance(event.item, Chunk)]
    return found


def objects(engine: StepLoop) -> list[Any]:
    return [engine, engine.scheduler, engine.sampler, engine.answers, engine.drafts, engine.runner]


def test_every_step_and_its_parts_are_recorded_within_it() -> None:
    engine = make_engine()
    recording = Recording(engine)
    recording.begin()
    engine.submit(request(1, 5))
    engine.submit(request(2, 5))
    drained(engine)
    recording.end()
    by_name: dict[str, list[Timed]] = {}
    for event in recording.events:
        by_name.setdefault(event.name, []).append(event)
    steps = by_name[STEP]
    assert len(steps) >= 5 and {LAUNCH, WAIT, SAMPLE, TEXT, COUNTS} <= by_name.keys()
    totals = [sum(one.about[name] for one in steps) for name in ("prompts", "decodes")]
    assert totals == [2, 8] and steps[0].about["prompt_tokens"] > 0 and steps[0].about["context"] == 0
    assert steps[0].about["requests"] > 0 and steps[-1].about["requests"] == 0
    for name in by_name.keys() - {STEP, REQUEST, COUNTS}:
        for part in by_name[name]:
            assert any(step.began <= part.began and part.began + part.took <= step.began + step.took for step in steps)
    assert {one.about["key"] for one in by_name[REQUEST]} == {1, 2}
    assert len(by_name[LAUNCH]) == len(by_name[WAIT]) <= len(steps)
    assert by_name[COUNTS][0].about.keys() == {"decoding", "prefilling", "waiting", "kv_used", "kv_blocks"}


def test_what_is_recorded_is_answered_as_ever_and_nothing_is_left_of_it() -> None:
    engine = make_engine()
    before = [dict(vars(one)) for one in objects(engine)]
    recording = Recording(engine)
    recording.begin()
    engine.submit(request(1, 9))
    assert text_of(drained(engine)) == text_of(run_alone(request(1, 9)))
    recording.end()
    assert [vars(one).keys() for one in objects(engine)] == [one.keys() for one in before]
    seen = len(recording.events)
    engine.submit(request(2, 9))
    drained(engine)
    assert len(recording.events) == seen


def test_a_request_that_was_here_before_and_one_that_is_aborted_are_recorded_once_each() -> None:
    engine = make_engine()
    engine.submit(request(1, 5))
    engine.submit(request(2, 90))
    engine.step()
    recording = Recording(engine)
    recording.begin()
    for _ in range(10):
        engine.step()
    engine.abort(2)
    assert [event.about["key"] for event in recording.events if event.name == REQUEST] == [1, 2]
    recording.end()
    found = {event.about["key"]: event for event in recording.events if event.name == REQUEST}
    assert found.keys() == {1, 2} and len([event for event in recording.events if event.name == REQUEST]) == 2
    assert all(recording.began <= one.began and one.began + one.took <= recording.ended for one in found.values())
    assert not {"abort", "abort_id"} & vars(engine).keys()


def test_no_more_than_so_many_events_are_kept_and_the_others_are_counted() -> None:
    engine = make_engine()
    recording = Recording(engine, most=10)
    recording.begin()
    engine.submit(request(1, 30))
    drained(engine)
    recording.end()
    assert len(recording.events) == 10 and recording.dropped > 10


def test_a_step_that_fails_fails_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such step")

    monkeypatch.setattr(engine.runner, "run", broken)
    recording = Recording(engine)
    recording.begin()
    engine.submit(request(1, 3))
    (event,) = engine.step()
    recording.end()
    assert "no such step" in str(event.item)
    assert LAUNCH in {one.name for one in recording.events}


def test_a_generator_that_lets_nothing_be_replaced_is_served_on_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    class Closed(type(make_engine().sampler)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: object) -> None:
            if name == "sample":
                raise AttributeError("it is closed")
            super().__setattr__(name, value)

    engine = make_engine()
    engine.sampler.__class__ = Closed
    recording = Recording(engine)
    with working(engine) as worker:
        assert worker.do(recording.begin).wait(20)
        assert "it is closed" in caplog.text
        client = Client()
        worker.submit(request(1, 5), client)
        assert client.last
    assert not recording.events and "step" not in vars(engine) and "plan" not in vars(engine.scheduler)


class _Other:
    """A generator that is no loop of ours."""

    def __init__(self) -> None:
        self._engine = make_engine()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def test_of_another_generator_steps_and_requests_are_recorded() -> None:
    other: Any = _Other()
    recording = Recording(other)
    recording.begin()
    other.submit_group((request(1, 3),))
    while other.has_work:
        other.step()
    recording.end()
    assert {one.name for one in recording.events} == {STEP, REQUEST, COUNTS}


class Asked:
    """A worker whose engine is asked by files in a folder."""

    def __init__(self, worker: Worker, engine: StepLoop, folder: Path) -> None:
        self.worker, self.folder, self.now = worker, folder, 0.0
        self.profiling = Profiling("m", engine, worker, os.fsencode(folder / "profile"), clock=lambda: self.now)

    def ask(self, name: str = "a1", seconds: float = 2.0, until: float | None = None) -> None:
        until = time.time() + 60 if until is None else until
        (self.folder / "profile.ask").write_text(json.dumps({"name": name, "seconds": seconds, "until": until}))

    def serve(self, key: int) -> None:
        client = Client()
        self.worker.submit(request(key, 5), client)
        assert client.last

    @property
    def records(self) -> list[Path]:
        return sorted(self.folder.glob("profile-*"))


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    engine = make_engine()
    with working(engine) as worker:
        yield Asked(worker, engine, tmp_path)


def looked(one: Asked) -> None:
    """Look until it is written: the stepping thread takes note when it gets to it."""
    end = time.monotonic() + 20
    while not one.records:
        one.profiling.look()
        assert time.monotonic() < end


def test_who_asks_by_a_file_finds_the_record_beside_it(asked: Asked) -> None:
    asked.profiling.look()
    asked.serve(1)
    asked.ask()
    assert asked.profiling.patience(1.0) == 1.0
    asked.profiling.look()
    asked.now = 1.5
    assert asked.profiling.patience(1.0) == 0.5
    asked.serve(2)
    asked.profiling.look()
    assert not asked.records
    asked.now = 2.0
    looked(asked)
    (path,) = asked.records
    assert path.name == f"profile-a1-{os.getpid()}" and path.stat().st_mode & 0o777 == 0o600
    about, *lines = path.read_text().splitlines()
    told = json.loads(about)
    assert 0 < told.pop("began") < told.pop("ended")
    assert told == {"model": "m", "pid": os.getpid(), "dropped": 0, "slots": 16}
    events = [event for line in lines for event in json.loads(line)]
    assert [event[3]["key"] for event in events if event[0] == REQUEST] == [2]
    asked.profiling.look()
    assert len(asked.records) == 1  # one question, one record


@pytest.mark.parametrize(
    "question",
    [
        "",
        "{",
        "[]",
        '{"name": "a1"}',
        '{"name": "../a", "seconds": 1, "until": 9e12}',
        '{"name": "a", "seconds": 1, "until": 5}',
    ],
)
def test_what_is_no_question_or_is_asked_no_more_is_not_answered(question: str, asked: Asked) -> None:
    (asked.folder / "profile.ask").write_text(question)
    asked.profiling.look()
    assert asked.profiling.patience(1.0) == 1.0
    asked.now = 1e9
    asked.profiling.look()
    assert not asked.records


def test_a_link_in_the_questions_place_is_not_followed(asked: Asked) -> None:
    asked.ask()
    (asked.folder / "profile.ask").rename(asked.folder / "elsewhere")
    (asked.folder / "profile.ask").symlink_to(asked.folder / "elsewhere")
    asked.profiling.look()
    assert asked.profiling.patience(1.0) == 1.0


def test_a_record_that_cannot_be_written_keeps_nobody_from_being_served(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked.ask()
    asked.profiling.look()

    def full(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(profiling.os, "replace", full)
    asked.now = 3.0
    end = time.monotonic() + 20
    while "cannot be recorded" not in caplog.text:
        asked.profiling.look()
        assert time.monotonic() < end
    asked.serve(1)
    monkeypatch.undo()
    asked.ask("b2")
    asked.profiling.look()
    asked.now = 9.0
    end = time.monotonic() + 20
    while not list(asked.folder.glob(f"profile-b2-{os.getpid()}")):
        asked.profiling.look()
        assert time.monotonic() < end


def test_a_recording_that_could_not_begin_is_no_record_of_an_idle_engine(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(*_: object) -> None:
        raise AttributeError("it is closed")

    monkeypatch.setattr(Recording, "_replace", closed)
    asked.ask()
    asked.profiling.look()
    asked.serve(1)
    asked.now = 3.0
    end = time.monotonic() + 20
    while asked.profiling.patience(1.0) != 1.0:  # until it is over
        asked.profiling.look()
        assert time.monotonic() < end
    assert not asked.records and "it is closed" in caplog.text


def test_nothing_is_looked_for_where_no_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    with working(engine) as worker:
        monkeypatch.delenv("TRIUNE_PROFILE", raising=False)
        made = Profiling.of_environment("m", engine, worker)
        made.look()
        assert made.patience(1.0) == 1.0
