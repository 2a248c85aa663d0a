"""Faults of the chaos suite meet what they are meant for, or say that they have met nothing.

Run: pytest tests/bench/test_chaos_faults.py
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from bench.chaos.faults import clock, requests, signals
from bench.chaos.scene import Scene
from bench.chaos.server import Server

RECEIVER = """
import socket, sys
taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
taken.bind(sys.argv[1])
print(flush=True)
while True:
    taken.recv(5000)
"""


class Processes:
    """What a fault sees of a server."""

    def __init__(self, *found: psutil.Process) -> None:
        self._found = found

    def family(self) -> list[psutil.Process]:
        return list(self._found)

    def members(self, role: str) -> list[psutil.Process]:
        return list(self._found)


def scene(*found: psutil.Process) -> Scene:
    return Scene(cast(Server, Processes(*found)), 1, random.Random(1), ExitStack())


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Any]:
    address = tmp_path / "any"
    with subprocess.Popen([sys.executable, "-c", RECEIVER, str(address)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def test_odd_datagrams_reach_sockets_whatever_they_are_called(receiver: subprocess.Popen[str]) -> None:
    met = scene(psutil.Process(receiver.pid))
    requests.odd_datagrams(met)
    assert met.problems == [] and met.notes == ["5 messages"]


def test_odd_datagrams_that_meet_no_socket_are_a_problem() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another_s:
        another_s.bind("")  # a name of the kernel's choice
        met = scene()
        requests.odd_datagrams(met)
    assert met.problems == ["nothing met: no socket of the server takes datagrams"]


def test_killing_all_models_processes_where_there_are_none_is_a_problem() -> None:
    with pytest.raises(LookupError, match="no model has a process"):
        signals.kill_all_stubs(scene(psutil.Process()))


def test_a_process_with_the_machine_s_own_clock_is_told_from_one_that_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock._set(file, 0)
    here = scene(psutil.Process(os.getpid()))
    assert not clock._has_clock(here, "any", file)
    environment = {**os.environ, "LD_PRELOAD": str(clock._library(tmp_path)), "TRIUNE_CHAOS_CLOCK": str(file)}
    command = ["sh", "-c", "echo; read line"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert clock._has_clock(scene(psutil.Process(process.pid)), "any", file)
        process.kill()
