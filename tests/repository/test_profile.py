"""`triune profile` and an engine's process understand each other. Run: pytest tests/repository/test_profile.py"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fakes.pb_utils import MetricFamily
from fakes.repository import fake_engine
from triune_runtime.recorded import REQUEST
from triune_runtime.serving import generation
from triune_runtime.serving.profiling import VARIABLE
from triune_server.doctor.recording import Record, record
from triune_server.doctor.where import where
from triune_server.draining_file import profile_files


def test_a_server_that_is_asked_is_recorded_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, run_folder = tmp_path / "engine", tmp_path / "run"
    engine.mkdir()
    run_folder.mkdir()
    fake_engine(engine)
    monkeypatch.setenv(VARIABLE.decode(), str(profile_files(run_folder)))
    monkeypatch.setattr(generation, "_WATCH_S", 0.02)
    service = generation.GenerationService(engine, MetricFamily)
    found: list[Record] = []
    recorder = threading.Thread(target=lambda: found.extend(record(run_folder, 0.3)))
    try:
        recorder.start()
        while recorder.is_alive():
            answered = threading.Event()
            service.start(
                np.array([5], np.int32), ['{"params": {"max_tokens": 5, "ignore_eos": true}}'], request_id="", timeout_us=0,
                left=lambda: False, reply=lambda answer, last, answered=answered: answered.set() if last else None,
            )  # fmt: skip
            assert answered.wait(20)
    finally:
        recorder.join()
        service.close()
    (one,) = found
    seen = where(one)
    assert (one.model, one.pid, one.slots, one.dropped) == ("fake", os.getpid(), 16, 0)
    assert seen.steps >= 5 and {"launch", "sample", "plan", "rest"} <= seen.parts.keys()
    assert [event for event in one.events if event.name == REQUEST]
    assert not list(run_folder.iterdir())
