"""A supervisor on a thread of this process, and what can be seen of it from outside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from triune_server.errors import ServerError
from triune_server.options import ServerOptions
from triune_server.stubs import STUB
from triune_server.supervisor import Supervisor

PATIENCE_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


class Run:
    """A supervisor on a thread of its own."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.ready = 0
        self.error: ServerError | None = None
        self.supervisor = supervisor
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run(self._on_ready)
        except ServerError as error:
            self.error = error

    def _on_ready(self) -> None:
        self.ready += 1


@contextmanager
def running(supervisor: Supervisor) -> Iterator[Run]:
    run = Run(supervisor)
    try:
        yield run
    finally:
        supervisor.stop()
        run.thread.join(PATIENCE_S)
        assert not run.thread.is_alive()


def family(folder: Path) -> list[psutil.Process]:
    """Every live process of the server in `folder`, also one whose parent is dead."""
    alive = [p for p in psutil.process_iter(["status", "cmdline"]) if p.info["status"] != psutil.STATUS_ZOMBIE]
    return [p for p in alive if str(folder) in " ".join(p.info["cmdline"] or ())]


def stubs(folder: Path) -> list[psutil.Process]:
    return [p for p in family(folder) if p.name().startswith(STUB[:15])]


def fronts() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if is_alive(p) and "triune_gateway.kserve" in " ".join(p.cmdline())]


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def answers(where: ServerOptions) -> bool:
    try:
        return httpx.get(f"{where.http_url}/v2/health/ready").status_code == 200
    except httpx.HTTPError:
        return False
