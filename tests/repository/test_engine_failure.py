"""An engine that fails answers everyone and ends its process. Run: pytest tests/repository/test_engine_failure.py"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import MetricFamily
from fakes.repository import fake_engine
from triune_runtime.errors import TriuneError
from triune_runtime.generation.loop import StepLoop
from triune_runtime.serving import generation
from triune_runtime.serving.profiling import Profiling


def start(service: generation.GenerationService) -> tuple[threading.Event, list[Any]]:
    answered, answers = threading.Event(), []

    def reply(answer: Any, last: bool) -> None:
        answers.append(answer)
        if last:
            answered.set()

    service.start(np.array([5], np.int32), ["{}"], request_id="", timeout_us=0, left=lambda: False, reply=reply)
    return answered, answers


def test_a_failed_engine_answers_its_requests_and_then_reports_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(loop: StepLoop, wanted: object) -> Any:
        raise AssertionError("lost count")

    fake_engine(tmp_path)
    monkeypatch.setattr(StepLoop, "step", step)
    monkeypatch.setattr(generation, "_WATCH_S", 0.05)
    reports: list[bool] = []
    reported = threading.Event()
    answered = threading.Event()

    def on_failure() -> None:
        reports.append(answered.is_set())
        reported.set()

    service = generation.GenerationService(tmp_path, MetricFamily, on_failure)
    try:
        answered, answers = start(service)
        assert answered.wait(10)
        assert isinstance(answers[-1], TriuneError) and "lost count" in str(answers[-1])
        assert reported.wait(10)
        assert reports == [True]
    finally:
        service.close()


def test_a_service_that_is_closed_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_engine(tmp_path)
    monkeypatch.setattr(generation, "_WATCH_S", 0.02)
    reported = threading.Event()
    service = generation.GenerationService(tmp_path, MetricFamily, reported.set)
    answered, answers = start(service)
    assert answered.wait(10)
    service.close()
    assert not reported.wait(0.2)
    assert answers[-1]["finish_reason"].tolist()[0] in (b"stop", b"length")


def test_a_service_that_is_closed_while_it_is_looked_at_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, closed, reported = threading.Event(), threading.Event(), threading.Event()

    def look(profiling: Profiling) -> None:
        looking.set()
        closed.wait(10)

    fake_engine(tmp_path)
    monkeypatch.setattr(Profiling, "look", look)
    monkeypatch.setattr(generation, "_WATCH_S", 0.02)
    service = generation.GenerationService(tmp_path, MetricFamily, reported.set)
    assert looking.wait(10)
    service.close()
    closed.set()
    assert not reported.wait(0.2)
