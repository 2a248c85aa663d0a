"""The models that answer with one response, over a fake of Triton's requests between models.

Run: pytest tests/repository/test_one_answer.py
"""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.pb_utils import (
    InferenceRequest,
    InferenceResponse,
    InnerRequest,
    InnerResponse,
    InnerResponses,
    Sender,
    load_model,
    text,
)
from triune_runtime.serving.room import RoomWriter

MODELS = Path(__file__).parents[2] / "model_repository"


def answered(request: InferenceRequest) -> InferenceResponse:
    load_model(MODELS, "triune_infer").execute([request])
    deadline = time.monotonic() + 20
    while not request.sender.final:
        assert time.monotonic() < deadline, "no final response"
        time.sleep(0.002)
    (response,) = request.sender.sent
    return response


@pytest.fixture(autouse=True)
def _two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [InnerResponse(text_output=text(one)) for one in ("a", "b")]
    monkeypatch.setattr(InnerRequest, "answers", lambda: InnerResponses(chunks))
    monkeypatch.setattr(InnerRequest, "made", [])


def test_parameters_go_on_as_triton_takes_them_and_mean_the_same() -> None:
    given = {"temperature": 0.5, "max_tokens": 2.0, "n": 2, "ignore_eos": True, "stop": "x", "min_p": 1e300}
    assert answered(InferenceRequest({"text_input": text("a")}, given=given)).arrays()["text_output"].tolist() == [b"a", b"b"]
    (inner,) = InnerRequest.made
    assert inner.parameters == given | {"temperature": "0.5", "max_tokens": 2, "min_p": "1e+300"}
    assert [type(inner.parameters[name]) for name in ("temperature", "max_tokens", "ignore_eos")] == [str, int, bool]


def test_the_responses_are_held_until_triton_has_let_go_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks goes to the thread of Triton's stub that lets go of them; if it were the last, it would crash."""
    made: list[weakref.ref[InnerResponses]] = []

    def answers() -> InnerResponses:
        found = InnerResponses([InnerResponse(batch_index=np.array([[0]], np.int32), text_output=text("a"))])
        made.append(weakref.ref(found))
        return found

    class Asked(Sender):
        held: Any = None

        def is_cancelled(self) -> bool:
            self.held = made[0]() is not None
            return super().is_cancelled()

    monkeypatch.setattr(InnerRequest, "answers", answers)
    sender = Asked()
    answered(InferenceRequest({"text_input": text("a")}, sender=sender))
    assert sender.held


def test_where_generate_is_full_requests_are_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    room = RoomWriter(1, engine=MODELS / "generate" / "1")
    room.say(1)
    try:
        asked = InferenceRequest({"text_input": text("a")})
        assert "UNAVAILABLE [overloaded]: " in str(answered(asked).error) and not InnerRequest.made
        assert answered(InferenceRequest({"cancel": np.array([True])})).error is None
        room.say(0)
        assert answered(InferenceRequest({"text_input": text("a")})).error is None
    finally:
        room.close()


def test_more_requests_than_there_are_places_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()

    def answers() -> InnerResponses:
        let_go.wait(20)
        return InnerResponses([InnerResponse(text_output=text("a"))])

    monkeypatch.setattr(InnerRequest, "answers", answers)
    model = load_model(MODELS, "triune_infer")
    requests = [InferenceRequest({"text_input": text("a")}) for _ in range(260)]
    model.execute(requests)
    refused = [one for one in requests if one.sender.final]
    assert refused == requests[256:]
    assert all("UNAVAILABLE [overloaded]" in str(one.sender.sent[0].error) for one in refused)
    let_go.set()
    deadline = time.monotonic() + 20
    while not all(one.sender.final for one in requests):
        assert time.monotonic() < deadline, "no final response"
        time.sleep(0.01)
    again = InferenceRequest({"text_input": text("a")})
    model.execute([again])
    while not again.sender.final:
        assert time.monotonic() < deadline, "a place was not given back"
        time.sleep(0.01)
    assert again.sender.sent[0].error is None
