"""KServe's inference clients. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "kserve"


def test_whole_answers_are_the_same_over_http_and_grpc(run: Run) -> None:
    found = run("whole")
    assert found["grpc"][0].startswith(" Paris")
    assert found["json"] == found["bytes"] == found["grpc"]
    assert found["ready"] == [True] * 4


def test_a_refusal_names_what_is_not_served(run: Run) -> None:
    found = run("errors")
    assert found["rest"].startswith("400") and "beam_width is 4" in found["rest"]
    assert found["grpc"].startswith("INVALID_ARGUMENT") and "beam_width is 4" in found["grpc"]
