"""A supervisor that was killed, two at once, a full disk: over a stand-in for the binary.

Run: pytest tests/server/test_killed.py
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fakes.command import Triune
from triune_server.cli import NOT_RUNNING
from triune_server.leftovers import SHARED_MEMORY, mark_of, name_prefix

PATIENCE_S = 30.0
LISTENER = 'import socket, time; s = socket.create_server(("127.0.0.1", {port})); print(flush=True); time.sleep(600)'


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_ended(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(map(is_alive, processes)))


@pytest.fixture
def listeners() -> Iterator[list[subprocess.Popen[bytes]]]:
    made: list[subprocess.Popen[bytes]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()


def listener(made: list[subprocess.Popen[bytes]], port: int, mark: str | None) -> subprocess.Popen[bytes]:
    """A process that holds a port; with a mark, as a server's process has it."""
    environment = {**os.environ, **({"TRIUNE_RUN": mark} if mark else {})}
    command = [sys.executable, "-c", LISTENER.format(port=port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    made.append(process)
    assert process.stdout is not None and process.stdout.readline()
    return process


def state(triune: Triune) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found: dict[str, object] = json.loads((triune.run_folder / "triune.json").read_text())
        return found
    return {}


def up(triune: Triune) -> psutil.Process:
    """Start it; its supervisor."""
    triune("up", *triune.served)
    return psutil.Process(json.loads(triune("status", "--json").stdout)["pid"])


def test_a_killed_supervisor_takes_all_its_processes_along_and_another_can_start_at_once(triune: Triune) -> None:
    supervisor = up(triune)
    family = supervisor.children(recursive=True)
    assert len(family) == 3  # the front, the server and its stub
    family[-1].suspend()
    supervisor.kill()
    wait_ended(family)
    assert triune("status", exit_code=NOT_RUNNING).stdout.startswith("no server is running; start one")
    up(triune)


def test_orphans_are_found_by_their_mark_and_ended_and_nobody_else_is(
    triune: Triune, tmp_path: Path, listeners: list[subprocess.Popen[bytes]]
) -> None:
    triune.run_folder.mkdir()
    orphan = listener(listeners, triune.ports["GRPC_PORT"], mark_of(triune.run_folder))
    (tmp_path / "elsewhere").mkdir()
    others = [listener(listeners, 0, mark) for mark in (None, mark_of(tmp_path / "elsewhere"))]
    said = triune("status", exit_code=NOT_RUNNING).stdout
    assert said.startswith(f"no server is running, but 1 processes of one that was killed are left ({orphan.pid})")
    assert json.loads(triune("status", "--json", exit_code=NOT_RUNNING).stdout)["left"] == [orphan.pid]
    assert "ended 1 processes" in triune("down").stdout
    assert orphan.wait(10) == -signal.SIGKILL
    again = listener(listeners, triune.ports["GRPC_PORT"], mark_of(triune.run_folder))
    assert "ended 1 processes" in triune("up", *triune.served).stderr  # though it had a port of the server's
    assert again.wait(10) == -signal.SIGKILL
    assert [other.poll() for other in others] == [None, None]


def test_what_a_killed_run_shared_is_swept_and_nothing_of_others(triune: Triune) -> None:
    triune.run_folder.mkdir()
    region = SHARED_MEMORY / f"{name_prefix(mark_of(triune.run_folder))}7_of_a_killed_run"
    other = SHARED_MEMORY / f"triune{os.getpid()}_of_another_run"
    try:
        for file in (region, other):
            file.touch()
        triune("status", exit_code=NOT_RUNNING)
        assert region.exists()
        triune("down")
        assert not region.exists()
        region.touch()
        up(triune)
        assert not region.exists()
        assert other.exists()
    finally:
        region.unlink(missing_ok=True)
        other.unlink(missing_ok=True)


def test_the_folder_of_a_killed_run_s_sockets_is_swept_and_nothing_of_others(triune: Triune) -> None:
    with tempfile.TemporaryDirectory(prefix="t") as name:  # a short path: longer ones have no room for sockets
        triune.temporary = place = Path(name)
        supervisor = up(triune)
        (sockets,) = place.iterdir()
        other = place / f"{name_prefix('another')}x"
        other.mkdir()
        supervisor.kill()
        wait_until(lambda: not is_alive(supervisor))
        assert sockets.exists()
        triune("down")
        assert list(place.iterdir()) == [other]


def test_where_sockets_have_no_room_they_lie_elsewhere(triune: Triune, tmp_path: Path) -> None:
    triune.temporary = place = tmp_path / ("long" * 20)
    place.mkdir()
    up(triune)
    assert list(place.iterdir()) == []
    (sockets,) = Path("/tmp").glob(f"{name_prefix(mark_of(triune.run_folder))}*")
    triune("down")
    assert not sockets.exists()


def test_of_two_that_start_at_once_one_serves_and_the_other_says_so(triune: Triune) -> None:
    both = [triune.serve(stderr=subprocess.PIPE, start_new_session=True) for _ in range(2)]
    try:
        wait_until(lambda: any(process.poll() is not None for process in both))
        (loser,) = [process for process in both if process.poll() is not None]
        (winner,) = [process for process in both if process is not loser]
        assert loser.returncode == 1 and loser.stderr is not None
        said = loser.stderr.read().decode()
        assert said.startswith("error: ") and f"(pid {winner.pid}" in said.partition("\n")[0]  # it serves, or is about to
        assert said.count("error: ") == said.count("hint: ") == 1
        wait_until(lambda: triune("status").stdout.startswith(f"ready: {triune.repository} (pid {winner.pid})"))
        assert triune("down").stdout == f"stopped (pid {winner.pid})\n"  # though its parent, this process, does not ask for it
        assert winner.wait(10) == 0
    finally:
        for process in both:
            process.kill()


def test_a_server_whose_state_file_is_gone_is_still_seen_and_stopped(triune: Triune) -> None:
    supervisor = up(triune)
    (triune.run_folder / "triune.json").unlink()
    assert f"(pid {supervisor.pid})" in triune("status", exit_code=NOT_RUNNING).stdout
    assert f"(pid {supervisor.pid})" in triune.fails("serve", *triune.served)
    assert triune("down").stdout == f"stopped (pid {supervisor.pid})\n"
    assert not is_alive(supervisor)


def test_a_server_that_can_write_nothing_is_started_again(triune: Triune) -> None:
    """No file can grow, as on a full disk, and stdout and stderr are full, too."""
    with Path("/dev/full").open("wb") as full, triune.serve(stdout=full, stderr=full) as process:
        try:
            wait_until(lambda: state(triune).get("pid") == process.pid and len(psutil.Process(process.pid).children(True)) == 3)
            wait_until(lambda: triune("status").stdout.startswith("ready: "))
            psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (0, 0))
            (server,) = [p for p in psutil.Process(process.pid).children() if p.name() == "tritonserver"]
            family = [server, *server.children()]
            server.kill()
            psutil.wait_procs(family, 10)
            wait_until(lambda: len(psutil.Process(process.pid).children(True)) == 3)
            wait_until(lambda: triune("status").stdout.startswith("ready: "))
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_supervisor_that_can_open_nothing_goes_on(triune: Triune) -> None:
    supervisor = up(triune)
    (server,) = [p for p in supervisor.children() if p.name() == "tritonserver"]
    before, used = (
        supervisor.rlimit(resource.RLIMIT_NOFILE),
        {int(file.name) for file in Path(f"/proc/{supervisor.pid}/fd").iterdir()},
    )
    supervisor.rlimit(resource.RLIMIT_NOFILE, (next(n for n in itertools.count() if n not in used), before[1]))
    server.kill()
    wait_until(
        lambda: "no process can be started: Too many open files" in (triune.run_folder / "server.log").read_text("utf-8")
    )
    supervisor.rlimit(resource.RLIMIT_NOFILE, before)
    wait_until(lambda: triune("status").stdout.startswith(f"ready: {triune.repository} (pid {supervisor.pid})"))


def test_serve_ends_for_no_closed_stream(triune: Triune) -> None:
    closed = f"exec {sys.executable} -m triune_server serve --run-folder={triune.run_folder} {' '.join(triune.served)} >&- 2>&-"
    with subprocess.Popen(["sh", "-c", closed], env=triune.environment) as process:
        try:
            wait_until(lambda: state(triune).get("pid") == process.pid)
            wait_until(lambda: triune("status").stdout.startswith("ready: "))
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_deaths_are_told_by_status(triune: Triune) -> None:
    triune.install(dies=True)
    with triune.serve(stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: int(str(state(triune).get("restarts", 0))) >= 2)
            assert "tritonserver ended with code 9" in triune("status").stdout
            assert json.loads(triune("status", "--json").stdout)["reason"].startswith("tritonserver ended with code 9")
        finally:
            process.terminate()
            assert process.wait(30) == 0
