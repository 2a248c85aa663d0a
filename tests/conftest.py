"""One real Triton server for all end-to-end tests, over the engine that `make engine` built; and what each of several processes
that run the tests (`make test`) gets of them.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.real_server import REPOSITORY, RealServer, start, stop

# Where this is a job in the background of a script it is ignored, and so it would be in all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# PyTorch's threads wait for each other in loops: where others compute, too, two are far slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How fast a machine draws examples says nothing of what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


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


@cache
def _shares_server(file: Path) -> bool:
    return re.search(r"\bserver: RealServer", file.read_text("utf-8")) is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For several processes: the files whose tests share the server come first, as they are the longest that is not divided."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not _shares_server(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A process gets a whole file, so that what its tests share is made once; one gets all files that share the server."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "server" if _shares_server(config.rootpath / file) else file

    return Files(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what became of the fuzzers' cases, whichever process sent them."""
    outcomes: dict[str, Counter[str]] = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) == "teardown":  # each of a test's reports has what was recorded so far
            for fuzzer, found in (case for name, cases in report.user_properties if name == "fuzzed" for case in cases.items()):
                outcomes.setdefault(fuzzer, Counter()).update(found)
    if outcomes:
        terminalreporter.section(f"{sum(found.total() for found in outcomes.values())} fuzzed cases")
    for fuzzer, found in outcomes.items():
        told = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(found.items()))
        terminalreporter.write_line(f"{fuzzer}: {found.total()} ({told})")
