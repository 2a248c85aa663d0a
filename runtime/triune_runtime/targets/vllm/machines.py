"""The first of several machines that serve one engine: it waits for the others, and learns when one of them is gone.

Each of the others has one connection to it, for as long as this start of the engine lasts. It says which it is and what it has,
is told to begin, and says why it cannot go on. When a connection ends, so does the engine, on both sides. JSON, a line each.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import IO, Any

from ...errors import ManifestError
from .child import Host
from .meeting import VARIABLE, Meeting
from .protocol import Order, Told

LOG = logging.getLogger(__name__)
_HELLO_S = 5.0  # for a machine to say what it has
_REACH_S = 3.0  # to reach a machine that is there
_LOOK_S = 0.5  # between looks at whether those that wait are still there
_LONGEST = 1 << 16  # bytes of a line
_OWN = ("model", "enable_prefix_caching")  # arguments that need not be the same everywhere: a path, and what the first one says


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of arguments that are not the same on two machines."""
    names = (ours.keys() | theirs.keys()) - set(_OWN)
    return sorted(name for name in names if ours.get(name) != theirs.get(name))


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send a line; one that nobody hears is lost."""
    with suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def receive(lines: IO[bytes]) -> dict[str, Any] | None:
    """The next line; None: there is none, or it is no message."""
    try:
        told = json.loads(lines.readline(_LONGEST))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


class Machines:
    """All but the first."""

    def __init__(self, meeting: Meeting, nodes: int, arguments: Mapping[str, Any]) -> None:
        """
        Args:
            nodes: how many there are with the first.
            arguments: vLLM's, of this machine.

        Raises:
            ManifestError: the port, or the next one, which is vLLM's, cannot be listened on.
        """
        self._meeting, self._nodes, self._arguments = meeting, nodes, dict(arguments)
        self._problem = ""
        self._there: dict[int, tuple[socket.socket, IO[bytes]]] = {}  # by rank
        self._next = _listen_at("", meeting.port + 1)  # until vLLM does, for the others to see whether they reach it
        self._listening = _listen_at(meeting.address, meeting.port)

    @property
    def problem(self) -> str:
        """Why the engine cannot go on; empty: it can."""
        return self._problem

    def gather(self, wait_s: float) -> None:
        """Wait until all are there, and have them begin.

        Raises:
            ManifestError: they do not come.
        """
        LOG.info("waiting at %s for %d further machines: triune node --master %s --rank N", self._meeting, self._nodes - 1,
                 self._meeting)  # fmt: skip
        end = time.monotonic() + wait_s
        self._listening.settimeout(_LOOK_S)
        while len(self._there) < self._nodes - 1:
            if time.monotonic() > end:
                missing = sorted(set(range(1, self._nodes)) - self._there.keys())
                self.close()
                raise ManifestError(
                    f"machines {', '.join(map(str, missing))} of {self._nodes} have not come to {self._meeting}",
                    f"start them there: triune node --master {self._meeting} --rank N",
                )
            with suppress(TimeoutError):
                self._welcome(self._listening.accept()[0])
            self._forget_gone()
        self._stop_listening()
        for rank, (connection, lines) in self._there.items():
            send(connection, {"begin": self._arguments | self._meeting.arguments(self._nodes, rank)})
            threading.Thread(target=self._listen, args=(rank, lines), name="triune-vllm-machine", daemon=True).start()

    def close(self) -> None:
        """Let the others know that this start is over."""
        self._stop_listening()
        for connection, _ in self._there.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _stop_listening(self) -> None:
        self._listening.close()
        self._next.close()

    def _welcome(self, connection: socket.socket) -> None:
        connection.settimeout(_HELLO_S)
        lines = connection.makefile("rb")
        told = receive(lines) or {}
        self._forget_gone()  # it may be one that was there before
        if why := self._refusal(told):
            LOG.warning("a machine is refused: %s", why)
            send(connection, {"refused": why})
            connection.close()
            return
        connection.settimeout(None)
        self._there[told["rank"]] = connection, lines
        LOG.info("machine %d of %d is there", told["rank"], self._nodes)

    def _forget_gone(self) -> None:
        for rank in [rank for rank, (connection, _) in self._there.items() if _is_closed(connection)]:
            self._there.pop(rank)[0].close()

    def _refusal(self, told: Mapping[str, Any]) -> str:
        rank, arguments = told.get("rank"), told.get("arguments")
        if not isinstance(rank, int) or not isinstance(arguments, dict):
            return "it does not say what it has"
        if not 0 < rank < self._nodes:
            return f"its rank is {rank}; of {self._nodes} machines the others are 1 to {self._nodes - 1}"
        if rank in self._there:
            return f"there is a machine of rank {rank} already"
        if names := differing(self._arguments, arguments):
            return f"its engine is another: {', '.join(names)} differ; build the same on all machines"
        return _unreachable(told.get("at"))

    def _listen(self, rank: int, lines: IO[bytes]) -> None:
        told = receive(lines)
        why = f"machine {rank}: {told['failed']}" if told and "failed" in told else f"machine {rank} is gone"
        self._problem = self._problem or why


def _unreachable(at: object) -> str:
    """Why vLLM's processes here would not reach those of a machine that listens at an address and a port; empty: they would."""
    match at:
        case [str(address), int(port)] if port < 1 << 16:
            pass
        case _:
            return "it does not say where it can be reached"
    try:
        socket.create_connection((address, port), timeout=_REACH_S).close()
    except OSError as error:
        return f"the first one does not reach it at port {port} of {address}: {error}; open all ports between the machines"
    return ""


def _listen_at(address: str, port: int) -> socket.socket:
    try:
        return socket.create_server((address, port))
    except OSError as error:
        said = f"the other machines cannot meet this one at port {port} of {address or 'any address'}: {error.strerror}"
        raise ManifestError(said, f"name another address or port of this machine: {VARIABLE}=ADDRESS:PORT") from None


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Spread:
    """vLLM's process on this machine, and the other machines: an `Engine` of them all."""

    def __init__(self, host: Host, machines: Machines) -> None:
        self._host, self._machines = host, machines

    @property
    def problem(self) -> str:
        return self._machines.problem or self._host.problem

    @property
    def lines(self) -> Iterable[str]:
        return self._host.lines

    def tell(self, order: Order) -> None:
        self._host.tell(order)

    def told(self, wait_s: float) -> list[Told]:
        return self._host.told(wait_s)

    def end(self) -> None:
        self._machines.close()
        self._host.kill()
