"""The models that answer with one response, on a real server over an engine that hardly computes: many requests, fast.

Run: pytest tests/e2e/test_one_answer.py
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from fakes.thinking import thinking_repository
from support.real_server import RealServer, start, stop

pytestmark = pytest.mark.triton
ROWS = ["a", "b", "c"]
REQUESTS = 500  # without care for Triton's threads, one in some 50 ended the process


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server of the made-up engine."""
    running = start(tmp_path_factory.mktemp("server"), thinking_repository(tmp_path_factory.mktemp("quick") / "repository"))
    yield running
    stop(running)


def test_many_requests_of_several_rows_leave_the_process_alive(quick: RealServer) -> None:
    inputs = [
        {"name": "text_input", "shape": [len(ROWS), 1], "datatype": "BYTES", "data": ROWS},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [3]},
    ]
    before = [process.pid for process in quick.stubs("ensemble_infer")]
    with httpx.Client(base_url=quick.url, timeout=30) as client, ThreadPoolExecutor(2) as pool:

        def ask(_: int) -> int:
            return client.post("/v2/models/ensemble_infer/infer", json={"inputs": inputs}).status_code

        assert set(pool.map(ask, range(REQUESTS))) == {200}
    assert [process.pid for process in quick.stubs("ensemble_infer")] == before


def test_parameters_may_be_fractions(quick: RealServer) -> None:
    body = {"text_input": "Hi", "parameters": {"temperature": 0.5, "seed": 7, "max_tokens": 4, "top_p": 1.0}}
    whole = [quick.generate(model, **body).json() for model in ("triune", "triune_infer")]
    assert whole[0]["text_output"] == whole[1]["text_output"] != ""
