"""Watching, restarting and stopping, over a stand-in for the binary. Run: pytest tests/server/test_supervisor.py"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fakes.server import fake_server
from support.supervising import PATIENCE_S, answers, family, fronts, running, stubs, wait_until
from triune_server.draining_file import stalled_file
from triune_server.errors import ServerError
from triune_server.inside import Inside
from triune_server.launcher import Server, is_ready
from triune_server.leftovers import mark_of
from triune_server.options import ServerOptions
from triune_server.state import find_running
from triune_server.supervisor import Supervisor
from triune_server.surroundings import Surroundings


def test_stopping_ends_every_process_and_frees_what_they_shared(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    other = shared_memory / "triune1_of_another_server"
    other.touch()
    with running(Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready and stubs(tmp_path))
        assert answers(where)
        found = find_running(tmp_path)
        assert found is not None and found.options == where
        assert len(list(shared_memory.iterdir())) == 2
    assert run.error is None
    assert family(tmp_path) == []
    assert find_running(tmp_path) is None
    assert list(shared_memory.iterdir()) == [other]


def test_a_killed_stub_restarts_the_server(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    with running(Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        (stub,) = stubs(tmp_path)
        stub.kill()
        wait_until(lambda: run.ready == 2 and answers(where))
        (again,) = stubs(tmp_path)
        assert again.pid != stub.pid
        assert len(list(shared_memory.iterdir())) == 1
    assert family(tmp_path) == []


def test_a_killed_server_is_started_again(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    with running(Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        stubs(tmp_path)[0].parent().kill()  # type: ignore[union-attr]  # a stub's parent is the server
        wait_until(lambda: run.ready == 2 and answers(where))
        assert len(stubs(tmp_path)) == 1, "the stub of the dead server lives on"
    assert family(tmp_path) == []


def test_a_killed_front_is_started_again_and_the_server_stays(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    with running(Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=0.05)) as run:
        wait_until(lambda: run.ready == 1)
        (front,) = fronts()
        front.kill()
        wait_until(lambda: not front.is_running())
        wait_until(lambda: answers(where))
        assert len((tmp_path / "started").read_text()) == 1
    assert fronts() == []


def test_a_server_that_does_not_end_when_asked_to_is_ended(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    binaries = fake_server(tmp_path, shared_memory, deaf=True)
    around, inside = Surroundings(mark=mark_of(tmp_path)), Inside(tmp_path / "inside")
    inside.folder.mkdir()
    server = Server(binaries, where, tmp_path / "log", around=around, inside=inside)
    server.wait_ready(PATIENCE_S)
    server.stop(timeout_s=0.2)
    assert family(tmp_path) == []
    assert not is_ready(where, inside)


@pytest.mark.parametrize("which", ["stub", "server"])
def test_a_process_that_is_stopped_is_noticed_and_the_server_started_again(
    tmp_path: Path, shared_memory: Path, where: ServerOptions, which: str
) -> None:
    supervisor = Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path, watch_s=0.05, silence_s=3.0)
    with running(supervisor) as run:
        wait_until(lambda: run.ready == 1)
        (stub,) = stubs(tmp_path)
        stopped = stub if which == "stub" else stub.parent()
        assert stopped is not None
        stopped.suspend()
        wait_until(stalled_file(tmp_path).exists)  # who asks for readiness is told long before
        assert run.ready == 1
        wait_until(lambda: run.ready == 2 and answers(where))
        found = find_running(tmp_path)
        assert found is not None and "has given no sign of life for 3 s" in found.reason
        silent = {stopped.pid, stub.pid}  # the stand-in speaks for its stub, too
        assert any(f"(pid {pid})" in found.reason for pid in silent)
        assert not stalled_file(tmp_path).exists()
    assert family(tmp_path) == []


def test_work_that_stands_still_is_noticed(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    supervisor = Supervisor(fake_server(tmp_path, shared_memory, late_s=77), where, tmp_path, watch_s=0.05)
    with running(supervisor) as run:
        wait_until(lambda: run.ready == 2)
        found = find_running(tmp_path)
        assert found is not None and "has stood still for 77 s" in found.reason


def test_a_server_that_cannot_start_says_why(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    with running(Supervisor(fake_server(tmp_path, shared_memory, broken=True), where, tmp_path)) as run:
        run.thread.join(PATIENCE_S)
    assert run.error is not None
    assert "failed to load 'generate': no room" in str(run.error)
    assert "server.log" in str(run.error.hint)


def test_a_port_in_use_names_the_port_the_holder_and_the_remedy(
    tmp_path: Path, shared_memory: Path, where: ServerOptions
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", where.grpc_port))
        holder.listen()
        with pytest.raises(ServerError) as caught:
            Supervisor(fake_server(tmp_path, shared_memory), where, tmp_path).run()
    assert f"port {where.grpc_port}" in str(caught.value)
    assert f"process {psutil.Process().pid}" in str(caught.value)
    assert caught.value.hint is not None and "GRPC_PORT=" in caught.value.hint
    assert find_running(tmp_path) is None


def test_a_killed_supervisor_leaves_no_server_behind(tmp_path: Path, shared_memory: Path, where: ServerOptions) -> None:
    binaries = fake_server(tmp_path, shared_memory)
    program = (
        "from pathlib import Path; from triune_server.supervisor import Supervisor; "
        "from triune_server.binaries import Binaries; from triune_server.options import ServerOptions; "
        f"Supervisor(Binaries(Path({str(binaries.server)!r}), Path({str(tmp_path)!r}), (), Path()), "
        f"ServerOptions(repository=Path('none'), "
        f"http_port={where.http_port}, grpc_port={where.grpc_port}, metrics_port={where.metrics_port}, "
        "openai_port=0), "
        f"Path({str(tmp_path)!r})).run()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: answers(where))
    started = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(started) == 3  # the server, its stub and the front
    for process in started:  # one that is stopped cannot do anything for its end itself
        process.suspend()
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started))
    assert find_running(tmp_path) is None
