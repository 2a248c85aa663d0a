"""Starting and stopping a supervisor in the background, and what can be seen of it from outside."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from .draining import under_way
from .errors import ServerError
from .gateway import is_gateway_ready
from .launcher import is_ready
from .leftovers import wait_gone
from .lock import tidy
from .options import ServerOptions
from .state import RunningServer, begin_log, find_running
from .threads import start_seconds

_MORE_S = 30.0  # than its engines, for a server to serve
_ENDING_S = 20.0  # for a supervisor to end, besides what its requests get
_KILLED_S = 5.0  # for what was killed to be gone
_ASKED_S = 2.0  # for the parents of what has ended to ask for its exit code


def start_in_background(
    options: ServerOptions, folder: Path, settings: Mapping[str, Any], timeout_s: float | None = None
) -> RunningServer:
    """Start `triune serve` in a session of its own and wait until it serves.

    Args:
        settings: see `RunningServer`.
        timeout_s: by default what its engines may take, and some more.

    Raises:
        ServerError: it ended or was not ready in time; its message and hint are what it said.
    """
    timeout_s = timeout_s or start_seconds(*options.repositories) + _MORE_S
    log = begin_log(folder)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = psutil.Popen(
            serve_command(options, folder, settings),
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise _last_error(log, start)
            running = find_running(folder)
            if running is not None and running.pid == process.pid and _serves(options):
                return running
            time.sleep(0.1)
        raise ServerError(f"the server was not ready after {timeout_s:.0f} s", f"the whole log is {log}")
    except BaseException:  # ctrl-C, for one: what was half started must not go on alone
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        raise


def serve_command(options: ServerOptions, folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """The command line of a server in the foreground, which holds nothing of the builder in memory."""
    arguments = []
    for field in dataclasses.fields(options):
        value, option = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        arguments += [f"{option}={one}" for one in (value if isinstance(value, tuple) else (value,)) if one is not None]
    arguments += [f"--run-folder={folder}", f"--settings={json.dumps(settings)}"]
    return [sys.executable, "-m", "triune_server", "serve", *arguments]


def _last_error(log: Path, start: int) -> ServerError:
    with log.open("rb") as file:
        file.seek(start)
        text = "\n" + file.read().decode("utf-8", "replace")
    _, _, said = text.rpartition("\nerror: ")  # ours is the last that begins a line; what it cites is indented
    message, _, hint = said.partition("\n\nhint: ")
    return ServerError(message.strip() or "the server ended while starting", hint.strip() or f"the whole log is {log}")


def stop_running(running: RunningServer, folder: Path, *, now: bool = False) -> None:
    """Stop a supervisor and all it started.

    Args:
        now: requests under way get no time to end.
    """
    with suppress(psutil.NoSuchProcess):
        stop_supervisor(psutil.Process(running.pid), folder, now=now, drain_s=running.options.drain_s)


def stop_supervisor(process: psutil.Process, folder: Path, *, now: bool = False, drain_s: float = 0.0) -> None:
    """As `stop_running`, of one whose options are not known."""
    family = _family(process)
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT if now else signal.SIGTERM)  # it stops the others in order
    left = wait_gone(family, _ENDING_S + (0 if now else drain_s))
    for survivor in left:
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    wait_gone(left, _KILLED_S)
    psutil.wait_procs(family, _ASKED_S)
    tidy(folder)


def _family(supervisor: psutil.Process) -> list[psutil.Process]:
    """The supervisor and all it started; empty if it has ended meanwhile."""
    try:
        return [supervisor, *supervisor.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@dataclasses.dataclass(frozen=True)
class Health:
    """What can be seen of a running server from outside."""

    ready: bool
    memory_bytes: int  # proportional set size of the server and its processes
    requests: dict[str, int]  # running, waiting


def look(running: RunningServer) -> Health:
    """Ask the server and the system how it is doing."""
    memory = 0
    with suppress(psutil.Error):  # it ended meanwhile
        for process in _family(psutil.Process(running.pid)):
            with suppress(psutil.Error):
                memory += process.memory_full_info().pss
    return Health(_serves(running.options), memory, under_way(running.options))


def _serves(options: ServerOptions) -> bool:
    return is_ready(options) and (not options.openai_port or is_gateway_ready(options))
