"""`triune doctor --listen`: the other side of a measurement between two machines. Ends with its first peer, or when none comes.

It sends and takes in bytes for a while, answers pings, and holds the ports open that its own user named: nothing a peer says
makes it do more.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from triune_runtime.command_line import printable

from ..errors import ServerError
from .wire import HELLO, MOST_SECONDS, PING, Line, drink, hello, pour

_STREAMS = 16  # at most
_SILENCE_S, _HELLO_S = 40.0, 5.0
_CHOOSE = "choose another port, or an address of this machine: --listen PORT --listen-host ADDRESS"


def listen(host: str, port: int, ports: Sequence[int], patience_s: float, told: Callable[[int], None]) -> str:
    """Wait for one peer and be measured; whose that was.

    Args:
        port: 0: any that is free.
        ports: that are held open meanwhile, where nobody has them.
        told: gets the port when it listens.

    Raises:
        ServerError: the port is taken, nobody came in time, or the peer went away or is no doctor.
    """
    with ExitStack() as stack:
        server = stack.enter_context(_listener(host, port))
        held = {number: _held(host, number, stack) for number in ports}
        told(server.getsockname()[1])
        return _serve(server, held, time.monotonic() + patience_s)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64)
    except OSError as error:
        raise ServerError(f"port {port} on {host} cannot be used: {error.strerror}", _CHOOSE) from None


def _held(host: str, port: int, stack: ExitStack) -> bool:
    """Whether it was free; then it is held open."""
    with suppress(ServerError):
        stack.enter_context(_listener(host, port))
        return True
    return False


def _serve(server: socket.socket, held: dict[int, bool], until: float) -> str:
    """Greet connections until one is a peer's that has said goodbye."""
    who = ""
    while True:
        server.settimeout(max(until - time.monotonic(), 0.1))
        try:
            connection, address = server.accept()
        except TimeoutError:
            raise ServerError("no peer came", "on the other machine: triune doctor --peer THIS_MACHINE:PORT") from None
        with connection:
            connection.settimeout(_HELLO_S)
            line = Line(connection)
            try:
                first = line.hear()
                if first.get("hello") != HELLO:
                    continue
                line.say(**hello(ports=[[port, free] for port, free in held.items()]))
                connection.settimeout(_SILENCE_S)
                who = f"{printable(str(first.get('host', '?')))[:60]} ({address[0]})"
                _answer(line, server)
                return who
            except (ServerError, OSError, ValueError, LookupError, TypeError) as error:
                if who:
                    raise ServerError(f"{who} went away: {error}", "run both sides again") from error


def _answer(line: Line, server: socket.socket) -> None:
    """Do what is asked for until the peer says goodbye."""
    while (asked := line.hear()).get("do") != "bye":
        if asked.get("do") == "clock":
            came = time.time()
            line.say(came=came, went=time.time())
        elif asked.get("do") == "ping":
            for _ in range(min(int(asked["count"]), 10_000)):
                line.read(PING)
                line.connection.sendall(bytes(PING))
        elif asked.get("do") in ("send", "take"):
            _stream(line, server, asked)
        else:
            raise ServerError(f"it asks for {asked.get('do')!r:.60}", "use the same version on both sides")


def _stream(line: Line, server: socket.socket, asked: dict[str, object]) -> None:
    """Several connections at once, in one direction."""
    seconds = min(float(str(asked["seconds"])), MOST_SECONDS)
    count = min(int(str(asked["streams"])), _STREAMS)
    server.settimeout(_SILENCE_S)
    line.say(ready=True)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.accept()[0]) for _ in range(count)]
        for connection in connections:
            connection.settimeout(_SILENCE_S)
        taken: list[tuple[int, float]] = []
        if asked["do"] == "send":
            threads = [threading.Thread(target=_quietly, args=(lambda c=c: pour(c, seconds),)) for c in connections]
        else:
            threads = [threading.Thread(target=_quietly, args=(lambda c=c: taken.append(drink(c)),)) for c in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    line.say(bytes=sum(size for size, _ in taken), seconds=max((time_s for _, time_s in taken), default=0.0))


def _quietly(work: Callable[[], object]) -> None:
    with suppress(OSError):  # the peer went away, which the next line says
        work()
