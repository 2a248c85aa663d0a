"""The models that answer with one response, on a real server over an engine that hardly computes.

Run: pytest tests/e2e/test_one_answer.py
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from fakes.thinking import thinking_repository
from support.real_server import RealServer, start, stop

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server of the made-up engine."""
    running = start(tmp_path_factory.mktemp("server"), thinking_repository(tmp_path_factory.mktemp("quick") / "repository"))
    yield running
    stop(running)


def test_parameters_may_be_fractions(quick: RealServer) -> None:
    options = {"temperature": 0.5, "seed": 7, "max_tokens": 4.0}
    sent = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["Hi"]}], "parameters": options}
    reply = httpx.post(f"{quick.url}/v2/models/triune_infer/infer", json=sent, timeout=30).json()
    expected = quick.generate(text_input="Hi", temperature=0.5, seed=7, max_tokens=4).json()["text_output"]
    assert reply["outputs"][0]["data"] == [expected]
    refused = quick.generate("triune_infer", text_input="Hi", nope=1.5)
    assert (refused.status_code, "nope is '1.5'; no such parameter" in refused.text) == (400, True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_row_that_is_refused_after_others_have_begun_is_the_answer(quick: RealServer, stream: bool) -> None:
    """Triton does not bring an error that follows a response to whoever called a model by `exec`: it would wait for ever."""
    sent = {
        "inputs": [
            {"name": "text_input", "shape": [3, 1], "datatype": "BYTES", "data": ["Hi", "x" * 6000, "Ho"]},
            {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [1]},
            {"name": "n", "shape": [1, 1], "datatype": "INT32", "data": [3]},
            {"name": "stream", "shape": [1, 1], "datatype": "BOOL", "data": [stream]},
            # compiled by a thread of its own, and so not all rows are taken at once
            {"name": "guided_decoding_guide_type", "shape": [1, 1], "datatype": "BYTES", "data": ["json"]},
            {"name": "guided_decoding_guide", "shape": [1, 1], "datatype": "BYTES", "data": [""]},
        ]
    }
    for _ in range(12):  # whether a response comes before the error is a matter of microseconds
        reply = httpx.post(f"{quick.url}/v2/models/ensemble_infer/infer", json=sent, timeout=15)
        assert reply.status_code == 400 and "[too_long prompt]" in reply.json()["error"], reply.text
