"""One real Triton server for all end-to-end tests, over the engine that `make engine` built."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.real_server import REPOSITORY, RealServer, start, stop

# Where this is a job in the background of a script it is ignored, and so it would be in all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _need_engine() -> None:
    if not REPOSITORY.exists():
        pytest.fail(f"no model repository at {REPOSITORY}: run `make engine`, or set TRIUNE_E2E_REPOSITORY")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The server that most tests share."""
    _need_engine()
    running = start(tmp_path_factory.mktemp("server"))
    yield running
    stop(running)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RealServer]:
    """A server of one test's own, for tests that break it."""
    _need_engine()
    running = start(tmp_path)
    yield running
    stop(running)
