"""A real server to be fuzzed, and the tally of the cases. Run: make fuzz"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from bench.chaos.family import RENDERER, role_of

from fakes.thinking import thinking_repository
from support.fuzzing import Tally
from support.real_server import RealServer, start, stop


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """What became of a test's cases; the run's summary has them all."""
    made = Tally()
    yield made
    record_property("fuzzed", made.outcomes)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server of the repository that TRIUNE_FUZZ_REPOSITORY names, or of an engine that thinks but hardly computes."""
    named = os.environ.get("TRIUNE_FUZZ_REPOSITORY")
    repository = Path(named) if named else tmp_path_factory.mktemp("fuzz") / "repository"
    if not named:
        thinking_repository(repository)
    running = start(tmp_path_factory.mktemp("server"), repository)
    yield running
    stop(running)


@pytest.fixture(autouse=True)
def loses_nothing(target: RealServer) -> Iterator[None]:
    """After a fuzzer no slot is held, every process is still the one from before, and an answer comes at once."""
    before = _processes(target)
    yield
    target.wait_idle()
    assert _processes(target) == before, f"a process of the server ended:\n{target.log.read_text()[-3000:]}"
    began = time.monotonic()
    assert target.generate(text_input="Hi", max_tokens=2, ignore_eos=True).json()["num_output_tokens"] == 2
    assert time.monotonic() - began < 10


def _processes(server: RealServer) -> set[int]:
    """All but those that render chats: they come with the first chat, and may be replaced at any time."""
    every = psutil.Process(server.process.pid).children(recursive=True)
    return {process.pid for process in every if role_of(process) != RENDERER}
