"""The chat page over a real server of r1-nano, a model that thinks. Run: make test-page"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import ROOT, needs_a_browser, visit
from support.real_server import RealServer, start, stop

pytestmark = [needs_a_browser, pytest.mark.triton]


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server of r1-nano."""
    command = [sys.executable, "-m", "triune_server.command", "build", "--model", "r1-nano", "--precision", "fp32"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    running = start(tmp_path_factory.mktemp("server"), ROOT / "build/r1-nano/cpu/repository")
    yield running
    stop(running)


@pytest.fixture(scope="module")
def seen(thinker: RealServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a visit saw."""
    return visit("page_r1.mjs", f"{thinker.options.openai_url}/", tmp_path_factory.mktemp("shots"))


def test_an_answer_is_streamed_with_its_thinking_apart(seen: dict[str, Any]) -> None:
    assert "77" in seen["answer"]
    assert "17*4" in seen["thoughts"]
    assert "think>" not in seen["answer"] + seen["thoughts"]
    assert seen["steps"] > 3, "the answer came all at once"


def test_the_thinking_folds_when_the_answer_begins_and_says_how_long_it_took(seen: dict[str, Any]) -> None:
    assert seen["folded"]
    assert seen["summary"].startswith("Thought for ")
    assert "tokens" in seen["note"]


def test_stop_ends_an_answer_and_frees_its_place(seen: dict[str, Any], thinker: RealServer) -> None:
    assert seen["stopped"].startswith("Stopped.")
    thinker.wait_idle()


def test_the_console_is_quiet_and_nothing_is_wrong_with_any_look(seen: dict[str, Any]) -> None:
    assert seen["problems"] == [] and seen["elsewhere"] == []
    assert len(seen["violations"]) == 4
    assert not any(seen["violations"].values()), seen["violations"]
    assert max(seen["overflow"].values()) <= 0


def test_the_model_is_offered_by_its_names(seen: dict[str, Any]) -> None:
    assert seen["models"] == ["triune", "r1-nano"]
