"""NVIDIA's tritonclient. Run: make test-clients"""

from __future__ import annotations

import pytest

from clients_real.conftest import Run

pytestmark = pytest.mark.triton
CLIENT = "tritonclient"


def test_http_and_grpc_get_whole_answers_and_rows_of_them(run: Run) -> None:
    found = run("whole")
    assert len(set(found["texts"])) == 1 and found["texts"][0].startswith(" Paris")
    assert found["batch"][0] == found["texts"][0] and len(found["batch"]) == 2
    assert found["ready"] == [True, True, True]
    assert {"ensemble", "tensorrt_llm_bls", "tensorrt_llm", "vllm_model"} <= set(found["models"])


def test_streams_of_every_alias_are_the_same_text(run: Run) -> None:
    streams = run("stream")
    assert len({"".join(pieces) for pieces in streams.values()}) == 1
    for pieces in streams.values():
        assert len(pieces) > 1 and "".join(pieces).startswith(" Paris")


def test_an_error_has_its_status_and_its_reason(run: Run) -> None:
    found = run("error")
    assert found["status"].endswith("INVALID_ARGUMENT")
    assert "beam_width is 4" in found["message"]
