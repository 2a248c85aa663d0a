"""A process says that it lives, and when its work stands still. Run: pytest tests/runtime/test_pulse.py"""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from triune_runtime.serving import pulse
from triune_runtime.serving.pulse import Pulse, Watched, Work

ROOT = Path(__file__).parents[2]


def test_work_that_stands_still_for_too_many_beats_is_late_until_it_goes_on() -> None:
    work = Work()
    beats = Pulse((Watched(work.progress, 3),))
    assert [beats.late_beats() for _ in range(10)] == [0] * 10, "there is nothing to do"
    with work:
        assert [beats.late_beats() for _ in range(6)] == [0, 0, 0, 3, 4, 5]
    assert beats.late_beats() == 0
    for _ in range(20):
        with work:
            assert [beats.late_beats(), beats.late_beats(), beats.late_beats()] == [0, 0, 0], "each piece has the time"


def test_work_that_fails_is_over() -> None:
    work = Work()
    with pytest.raises(ValueError), work:
        raise ValueError
    assert work.progress() is None


def test_the_worst_of_several_is_told() -> None:
    beats = Pulse((Watched(lambda: 1, 2), Watched(lambda: None, 1), Watched(lambda: 1, 4)))
    assert [beats.late_beats() for _ in range(6)] == [0, 0, 2, 3, 4, 5]


def test_a_process_says_in_the_pipe_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "EVERY_S", 0.01)
    read, write = os.pipe()
    monkeypatch.setenv(pulse.VARIABLE, str(write))
    pulse.begin()
    assert select.select([read], [], [], 20)[0]
    assert os.read(read, 100).startswith(f"{os.getpid()} 0\n".encode())
    os.close(read)  # the thread goes on, and nothing of it can be seen here


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pulse.VARIABLE, raising=False)
    with pulse.begin() as nothing:
        assert nothing is None


@pytest.mark.parametrize("model", sorted(path.parents[1].name for path in ROOT.glob("model_repository/*/1/model.py")))
def test_every_model_beats(model: str) -> None:
    source = (ROOT / "model_repository" / model / "1/model.py").read_text()
    assert "pulse.begin()" in source or "GenerationService(" in source
    assert "work:" in source
