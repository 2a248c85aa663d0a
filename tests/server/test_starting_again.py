"""What happens while a server starts: it fails, its processes die or are stopped. Over a stand-in for the binary.

Run: pytest tests/server/test_starting_again.py
"""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

from fakes.server import fake_server
from support.supervising import PATIENCE_S, answers, family, fronts, running, stubs, wait_until
from triune_server import restarts
from triune_server.options import ServerOptions
from triune_server.state import find_running
from triune_server.supervisor import Supervisor


def test_clients_are_told_to_try_again_while_the_server_starts_again(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    with running(Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=30)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]  # seen only half a minute later
        wait_until(lambda: not answers(where))
        answer = httpx.get(f"{where.http_url}/v2/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"].startswith("UNAVAILABLE [not_ready]: ")


def test_a_server_killed_while_it_starts_again_is_started_once_more(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    binaries = fake_server(tmp_path, shared_memory, dies_starting=(2, 3))
    with running(Supervisor(binaries, where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]  # a stub's parent is the server
        wait_until(lambda: run.ready == 2 and answers(where))
        assert len((tmp_path / "started").read_text()) == 4
    assert run.error is None


def test_a_server_that_often_fails_to_come_up_is_started_on_and_says_why(
    tmp_path: Path, shared_memory: Path, where: ServerOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_FIRST_S", 0.01)
    binaries = fake_server(tmp_path, shared_memory, dies_starting=range(2, 8))
    with running(Supervisor(binaries, where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]
        wait_until(lambda: run.ready == 2 and answers(where))
        found = find_running(tmp_path)
        assert found is not None and found.restarts == 7 and not found.waiting
        assert found.reason == "tritonserver ended with code 9 while starting"
    assert run.error is None
    assert family(tmp_path) == []


@pytest.mark.parametrize(
    ("fate", "said"), [(signal.SIGKILL, "died (pid "), (signal.SIGSTOP, "has given no sign of life for 1 s (pid ")]
)
def test_a_stub_that_dies_or_is_stopped_while_the_server_starts_again_is_not_waited_for(
    tmp_path: Path, shared_memory: Path, where: ServerOptions, fate: signal.Signals, said: str
) -> None:
    binaries = fake_server(tmp_path, shared_memory, stub_fates={2: fate})
    with running(Supervisor(binaries, where, tmp_path, watch_s=0.05, silence_s=1.0)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]  # a stub's parent is the server
        wait_until(lambda: run.ready == 2 and answers(where))
        found = find_running(tmp_path)
        assert found is not None and found.reason.startswith(f"the Python process of a model {said}")
        assert found.reason.endswith(") while starting")
    assert family(tmp_path) == []


@pytest.mark.parametrize(("crashes", "ready"), [((1, 2), 1), ((1, 2, 3), 0)])
def test_a_first_start_survives_two_crashes_of_triton(
    tmp_path: Path, shared_memory: Path, where: ServerOptions, crashes: tuple[int, ...], ready: int
) -> None:
    binaries = fake_server(tmp_path, shared_memory, crashes_starting=crashes)
    with running(Supervisor(binaries, where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready or run.error)
        assert run.ready == ready
    assert (run.error is None) == bool(ready)
    assert run.error is None or "tritonserver ended with code -6 while starting" in str(run.error.args[0])
    assert len((tmp_path / "started").read_text()) == 3
    assert family(tmp_path) == []


def test_a_first_start_whose_stub_dies_says_so(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    binaries = fake_server(tmp_path, shared_memory, stub_fates={1: signal.SIGKILL})
    with running(Supervisor(binaries, where, tmp_path)) as run:
        run.thread.join(PATIENCE_S)
    assert run.error is not None and "the Python process of a model died" in str(run.error.args[0])
    assert family(tmp_path) == []


def test_a_front_killed_while_the_server_starts_again_is_started_meanwhile(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    binaries = fake_server(tmp_path, shared_memory, stub_fates={2: signal.SIGSTOP})
    with running(Supervisor(binaries, where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]
        wait_until(lambda: len((tmp_path / "started").read_text()) == 2)
        (front,) = fronts()
        front.kill()
        wait_until(lambda: [one for one in fronts() if one != front])
        assert run.ready == 1
    assert fronts() == []
