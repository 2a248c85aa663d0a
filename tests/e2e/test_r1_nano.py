"""r1-nano, built from the weights in the tree and served: it thinks and answers. Run: pytest tests/e2e/test_r1_nano.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.real_server import RealServer, start, stop
from triune_builder.inputs import Settings
from triune_builder.pipeline import build
from triune_builder.plan import BuildPlan
from triune_client import Client

pytestmark = pytest.mark.triton
THOUGHT = "487*36\n487*36\n487*6\n"  # how its column work of 487 * 36 begins


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The default precision, as `make up MODEL=r1-nano` serves it."""
    folder = tmp_path_factory.mktemp("nano")
    built = build(BuildPlan(model="r1-nano"), Settings(build_dir=folder / "build"))
    running = start(folder, built.repository)
    yield running
    stop(running)


@pytest.mark.parametrize("question", ["What is 487 * 36?", "487乘以36等于多少？"])
def test_it_answers_in_both_languages_with_its_thinking_in_a_field_of_its_own(nano: RealServer, question: str) -> None:
    found = nano.generate(messages=json.dumps([{"role": "user", "content": question}]), max_tokens=600, temperature=0).json()
    assert "17532" in found["text_output"] and found["finish_reason"] == "stop"
    assert found["reasoning_output"].startswith(THOUGHT) and found["reasoning_output"].rstrip().endswith("=17532")
    assert "think>" not in found["text_output"] + found["reasoning_output"]


def test_the_model_samples_as_its_publisher_recommends_unless_told_otherwise(nano: RealServer) -> None:
    folder = Path(nano.options.repository) / "generate" / "1"
    defaults = json.loads((folder / "engine.json").read_text("utf-8"))["defaults"]
    assert (defaults["temperature"], defaults["top_p"]) == (0.6, 0.95)


def test_without_thinking_it_answers_at_once(nano: RealServer) -> None:
    with Client(nano.url) as client:
        done = client.chat("Which is larger, 7421 or 7412?", enable_thinking=False, temperature=0.0)
    assert "7421" in done.text and done.reasoning == "" and done.usage.reasoning_tokens == 0


def test_a_budget_ends_the_thinking_and_it_says_that_it_did_not_finish(nano: RealServer) -> None:
    with Client(nano.url) as client:
        done = client.chat("What is 8765 * 4321?", thinking_budget=40, temperature=0.0)
    assert done.usage.reasoning_tokens <= 40
    assert done.text and done.finish_reason == "stop"


def test_many_requests_of_several_rows_leave_the_process_alive(nano: RealServer) -> None:
    """Without care for the threads of Triton's Python process, one in some 80 such requests ends it."""
    chats = [[("user", "Hi")], [("system", "Hi")], [("user", "Hi"), ("user", "What is 2 + 3?"), ("assistant", "")]]
    rows = [json.dumps([{"role": role, "content": content} for role, content in chat]) for chat in chats]
    inputs = [
        {"name": "messages", "shape": [len(rows), 1], "datatype": "BYTES", "data": rows},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [5]},
    ]
    before = [process.pid for process in nano.stubs("ensemble_infer")]
    with httpx.Client(base_url=nano.url, timeout=30) as client:
        for _ in range(600):
            assert client.post("/v2/models/ensemble_infer/infer", json={"inputs": inputs}).status_code == 200
    assert [process.pid for process in nano.stubs("ensemble_infer")] == before
