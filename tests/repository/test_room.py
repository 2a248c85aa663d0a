"""A request of several prompts comes in with all of them, or with none. Run: pytest tests/repository/test_room.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import MetricFamily
from fakes.repository import fake_engine
from triune_runtime.errors import Overloaded, RequestError
from triune_runtime.manifest import Limits
from triune_runtime.serving.generation import GenerationService
from triune_runtime.worker import Worker

SMALL = Limits(max_sequences=2, max_queue=3)


def start(service: GenerationService, *asked: dict[str, Any]) -> None:
    """Send one request with a prompt of one token for each of `asked`, its options."""
    options = [json.dumps({"prompt_tokens": 1, **one}) for one in asked]
    prompts = np.full(len(asked), 5, np.int32)
    service.start(prompts, options, request_id="", timeout_us=0, left=lambda: False, reply=lambda answer, last: None)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences the worker was given at a time."""
    found: list[int] = []
    monkeypatch.setattr(Worker, "submit_group", lambda worker, group, *_: found.append(len(group)))
    return found


def test_more_prompts_than_there_ever_is_room_for_are_refused_for_good(tmp_path: Path, taken: list[int]) -> None:
    fake_engine(tmp_path, SMALL)
    service = GenerationService(tmp_path, MetricFamily)
    try:
        start(service, *[{}] * 5)
        assert taken == [1] * 5
        for asked in ([{}] * 6, [{}, {}, {"n": 2, "best_of": 2}, {"n": 2, "best_of": 2}]):
            with pytest.raises(RequestError, match="6 answers are asked for at once; at most 5 are served and waited for"):
                start(service, *asked)
        assert taken == [1] * 5
    finally:
        service.close()


def test_more_prompts_than_there_is_room_for_now_are_refused_together(
    tmp_path: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_engine(tmp_path, SMALL)
    service = GenerationService(tmp_path, MetricFamily)
    monkeypatch.setattr(type(service._worker._outbox), "__len__", lambda outbox: 3)  # as if others were served
    try:
        start(service, {}, {})
        with pytest.raises(Overloaded, match="3 requests are here already, the limit is 2 being served and 3 waiting"):
            start(service, {}, {}, {})
        assert taken == [1, 1]
    finally:
        monkeypatch.undo()
        service.close()
