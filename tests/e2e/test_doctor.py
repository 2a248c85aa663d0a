"""`triune doctor` and `triune profile` over a real server. Run: pytest tests/e2e/test_doctor.py"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.repository import fake_repository
from support.real_server import RealServer, start, stop

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealServer, Path]]:
    """A server of the fake engine, and its run folder."""
    folder = tmp_path_factory.mktemp("doctor")
    running = start(folder, fake_repository(folder / "repository"))
    yield running, folder
    stop(running)


def triune(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triune_server.entry", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@contextmanager
def asked(server: RealServer) -> Iterator[None]:
    """Somebody asks the server all the while."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            server.generate(text_input="hello", max_tokens=50, ignore_eos=True)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def test_a_server_under_load_is_profiled(fake: tuple[RealServer, Path]) -> None:
    server, folder = fake
    with asked(server):
        done = triune("profile", "--run-folder", folder, "--seconds", 2, "--output", folder / "trace.json", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (engine,) = told["engines"].values()
    assert engine["steps"] > 5 and engine["decoding"] > 0 and {"launch", "sample", "plan", "rest"} <= engine["parts"].keys()
    trace = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {"step", "launch", "request", "sequences", "busy cores"} <= {one["name"] for one in trace}
    busy = [one["args"] for one in trace if one["name"] == "busy cores"]
    assert any({"generate", "tritonserver", "front"} <= one.keys() for one in busy)
    assert (folder / "trace.svg").read_text().startswith("<svg")
    assert not list(folder.glob("profile*"))


def test_a_doctor_tells_of_a_server_that_is_well_and_of_one_that_nobody_asks(fake: tuple[RealServer, Path]) -> None:
    server, folder = fake
    server.wait_idle()
    done = triune("doctor", "--only", "server", "--run-folder", folder, "--seconds", 1, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert found["server"]["verdict"] == "good" and "ready" in found["server"]["found"]
    assert found["steps"]["verdict"] == "unknown" and "idle" in found["steps"]["found"]
    assert "cores in use" in found["processor"]["found"]
    with asked(server):
        done = triune("doctor", "--only", "server", "--run-folder", folder, "--seconds", 2, "--json")
    found = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert "steps a second" in found["steps of fake"]["found"] and "of 16 places" in found["queue of fake"]["found"]
