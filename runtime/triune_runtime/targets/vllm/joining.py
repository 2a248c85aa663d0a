"""A further machine of an engine that several serve: it goes to the first one again and again, and does its part each time."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ...errors import ManifestError
from ...manifest import EngineManifest
from .causes import cause_in
from .child import Host
from .finding import find_python
from .hosting import environment
from .leftovers import sweep
from .machines import receive, send
from .meeting import OWN_ADDRESS, VARIABLE, Meeting, network_of
from .plan import VllmPlan, engine_arguments
from .preflight import check_machine
from .protocol import Failed, Start

LOG = logging.getLogger(__name__)
_PROGRAM = "triune_runtime.targets.vllm.node"
_AGAIN_S = 1.0  # between two attempts
_LOOK_S = 0.25
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 4}  # seconds, seconds, probes: a first machine that is gone


class _Closed(OSError):
    """The first machine is there, and a port of it is not open."""


def join(
    folder: Path, master: str, rank: int, stop: threading.Event, around: Mapping[str, str],
    command: Sequence[str] | None = None, leave: threading.Event | None = None,
) -> None:  # fmt: skip
    """See `Target.join`.

    Args:
        command: what starts vLLM's process, by default with the Python that has it.
        leave: by default `stop`.
    """
    leave = leave or stop
    manifest = EngineManifest.load(folder)
    plan, meeting = VllmPlan.of(manifest), Meeting.parse(master, "--master")
    if plan.nodes < 2:
        raise ManifestError("this engine is for one machine", f"build it for several on each of them: NODES=2; {_RANKS}")
    if not 0 < rank < plan.nodes:
        others = "1" if plan.nodes == 2 else f"1 to {plan.nodes - 1}"
        raise ManifestError(f"--rank is {rank}; expected {others}: this engine is for {plan.nodes} machines", _RANKS)
    check_machine(plan, around)
    python = find_python()
    arguments = engine_arguments(manifest, folder, prefix_caching=True)
    told = ""
    while not (stop.is_set() or leave.is_set()):
        try:
            with socket.create_connection((meeting.address, meeting.port), timeout=_AGAIN_S) as connection:
                lines = connection.makefile("rb")
                _keep_alive(connection)
                _check_next_port(meeting)
                network = network_of(connection.getsockname()[0], around)
                with socket.create_server((network[OWN_ADDRESS], 0)) as own:  # which the first one tries to reach
                    send(connection, {"rank": rank, "arguments": arguments, "at": own.getsockname()})
                    LOG.info("waiting at %s until all machines are there", meeting)
                    begin = _wait(connection, lines, leave)
                if begin is not None:
                    sweep()
                    host = Host(
                        command or [str(python), "-m", _PROGRAM], environment(plan, folder, python, {**around, **network})
                    )
                    _serve(host, Start(arguments=begin | {"model": arguments["model"]}), connection, stop)
            told = ""
        except OSError as error:
            why = f"the first machine does not answer at {meeting} yet: {error}; serve there with {VARIABLE}={meeting}"
            why = str(error) if isinstance(error, _Closed) else why
            if why != told:
                LOG.info(why)
            told = why
        leave.wait(_AGAIN_S)


_RANKS = "the first one, whose rank is 0, is served with `triune serve`; the others have 1 and up"


def _check_next_port(meeting: Meeting) -> None:
    """Whether the first machine can be reached where vLLM's processes will meet: it listens there as long as it waits."""
    port = meeting.port + 1
    try:
        socket.create_connection((meeting.address, port), timeout=_AGAIN_S).close()
    except OSError as error:
        raise _Closed(
            f"the first machine answers at {meeting}, and not at port {port}, where vLLM's processes meet: {error}; "
            "open it, and all others between the machines"
        ) from None


def _wait(connection: socket.socket, lines: IO[bytes], leave: threading.Event) -> dict[str, Any] | None:
    """vLLM's arguments, once all are there; None: the first one has gone, or this one is to end.

    Raises:
        ManifestError: the first one does not want this one.
    """
    while not leave.is_set():
        if not select.select([connection], [], [], _LOOK_S)[0]:
            continue
        told = receive(lines) or {}
        if "refused" in told:
            raise ManifestError(f"the first machine refuses this one: {told['refused']}", "see docs/vllm.md")
        return told.get("begin")
    return None


def _serve(host: Host, start: Start, connection: socket.socket, stop: threading.Event) -> None:
    """Do this machine's part until anything of it ends."""
    LOG.info("all machines are there: this one begins")
    why = ""
    try:
        host.tell(start)
        while not stop.is_set() and not select.select([connection], [], [], 0)[0]:
            for told in host.told(_LOOK_S):
                why = told.why if isinstance(told, Failed) else why
            if why or host.problem:
                break
        else:
            LOG.info("the first machine has ended: this one does, too")
            return
    finally:
        host.kill()
    why = cause_in(host.lines) or why or host.problem
    LOG.warning("this machine's part has ended: %s", why)
    send(connection, {"failed": why})


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
