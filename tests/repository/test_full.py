"""A full server refuses at its first step, before it has done anything. Run: pytest tests/repository/test_full.py"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, load_model, text
from fakes.repository import fake_repository
from triune_runtime.contracts.outputs import DESCRIBED
from triune_runtime.manifest import Limits
from triune_runtime.serving.room import RoomWriter


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one slot, and one place to wait."""
    limits = Limits(max_length=256, max_sequences=1, max_queue=1)
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", limits)


@pytest.fixture(scope="module")
def tokenize(repository: Path) -> Any:
    return load_model(repository, "tokenize")


@pytest.fixture
def full(repository: Path, tokenize: Any) -> Iterator[RoomWriter]:
    """What generate says, that it is."""
    room = RoomWriter(2, engine=repository / "generate" / "1")
    room.say(2)
    yield room
    room.close()


class Described(InferenceRequest):
    def requested_output_names(self) -> list[str]:
        return ["input_ids", next(iter(DESCRIBED))]


def refusal(tokenize: Any, request: InferenceRequest) -> str:
    """Why a request was refused; "": it was not."""
    (response,) = tokenize.execute([request])
    return str(response.error or "")


def test_tokenize_refuses_what_generate_would(tokenize: Any, full: RoomWriter) -> None:
    for wrong in ({}, {"max_tokens": np.array([-1], np.int32)}):  # it is not read
        assert "UNAVAILABLE [overloaded]: " in refusal(tokenize, InferenceRequest({"text_input": text("a"), **wrong}))
    assert full.refused() == 2
    full.say(1)
    assert refusal(tokenize, InferenceRequest({"text_input": text("a")})) == ""


def test_what_only_asks_for_tokens_or_ends_another_is_served(tokenize: Any, full: RoomWriter) -> None:
    assert refusal(tokenize, Described({"text_input": text("a")})) == ""
    assert refusal(tokenize, InferenceRequest({"cancel": np.array([True])})) == ""


def test_generate_says_how_many_requests_it_has(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    monkeypatch.setattr(RoomWriter, "say", lambda room, here: said.append(here))
    generate = load_model(repository, "generate")
    options = text(json.dumps({"params": {"max_tokens": 200, "ignore_eos": True}}))
    asked = [InferenceRequest({"input_ids": np.array([5], np.int32), "options": options}) for _ in range(2)]
    generate.execute(asked)
    deadline = time.monotonic() + 20
    while not all(one.sender.final for one in asked):
        assert time.monotonic() < deadline, "it never ended"
        time.sleep(0.002)
    generate.finalize()
    assert max(said) == 2 and said[-1] == 0
