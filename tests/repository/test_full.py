"""A full server refuses at its first step, before it has done anything. Run: pytest tests/repository/test_full.py"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import InferenceRequest, InferenceResponse, load_model, text
from fakes.repository import fake_repository
from triune_runtime.contracts.outputs import DESCRIBED
from triune_runtime.manifest import Limits


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one slot, and one place to wait."""
    limits = Limits(max_length=8192, max_sequences=1, max_queue=1)
    return fake_repository(tmp_path_factory.mktemp("fake") / "repository", limits)


@pytest.fixture
def full(repository: Path) -> Iterator[Any]:
    """A generate that is."""
    model = load_model(repository, "generate")
    options = text(json.dumps({"params": {"max_tokens": 8000, "ignore_eos": True}}))
    asked = [InferenceRequest({"input_ids": np.array([5], np.int32), "options": options}, id=str(n)) for n in range(3)]
    model.execute(asked)
    assert "2 requests are here already" in str(asked[2].sender.sent[0].error)
    yield model
    model.finalize()


class Described(InferenceRequest):
    def requested_output_names(self) -> list[str]:
        return ["input_ids", next(iter(DESCRIBED))]


def tokenized(repository: Path, request: InferenceRequest) -> InferenceResponse:
    (response,) = load_model(repository, "tokenize").execute([request])
    assert isinstance(response, InferenceResponse)
    return response


def test_tokenize_refuses_what_generate_would(repository: Path, full: Any) -> None:
    error = tokenized(repository, InferenceRequest({"text_input": text("a")})).error
    assert "UNAVAILABLE [overloaded]: " in str(error)
    wrong = tokenized(repository, InferenceRequest({"text_input": text("a"), "max_tokens": np.array([-1], np.int32)})).error
    assert "UNAVAILABLE [overloaded]: " in str(wrong), "it has not been read"


def test_what_only_asks_for_tokens_or_ends_another_is_served(repository: Path, full: Any) -> None:
    assert tokenized(repository, Described({"text_input": text("a")})).error is None
    assert tokenized(repository, InferenceRequest({"cancel": np.array([True])})).error is None


def test_when_a_place_is_free_requests_pass_again(repository: Path, full: Any) -> None:
    ending = text(json.dumps({"cancel": True}))
    full.execute([InferenceRequest({"input_ids": np.array([0], np.int32), "options": ending}, id="0")])
    deadline = time.monotonic() + 20
    while tokenized(repository, InferenceRequest({"text_input": text("a")})).error is not None:
        assert time.monotonic() < deadline, "it was never free again"
        time.sleep(0.01)
