"""`triune doctor --peer`: what lies between two machines: bandwidth both ways, latency, clocks, ports."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from .. import __version__
from ..errors import ServerError
from .context import Context
from .finding import Finding, bad, good, poor, unknown
from .wire import HELLO, PING, Line, drink, hello, pour

ASKED_GBPS = 100.0
_NEARLY = 0.9  # of it: headers take some
_STREAMS, _PINGS, _CLOCKS = 8, 500, 20
_QUICK_S = 100e-6  # there and back, within a rack
_SKEW_S = 0.1
_CONNECT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Between:
    """What was measured."""

    host: str
    version: str
    latencies: tuple[float, ...]  # seconds, there and back
    skew: float  # seconds that the other clock is ahead
    doubt: float  # seconds that may be wrong of it
    sent: float  # bits a second, to there
    taken: float  # from there
    ports: dict[int, tuple[bool, str]]  # whether the other side held it open; why it was not reached


def network(context: Context) -> Iterator[Finding]:
    """The network between this machine and the peer; nothing where none is named."""
    if context.peer is None:
        return
    found = measure(*context.peer, context.seconds)
    if found.version != __version__:
        remedy = "all machines of one model need the same"
        yield poor("version there", f"{found.version}, here {__version__}", remedy)
    yield from judged(found)


def judged(found: Between) -> Iterator[Finding]:
    """What the numbers mean."""
    text = (
        f"{found.sent / 1e9:.1f} Gbit/s to there, {found.taken / 1e9:.1f} Gbit/s from there, over {_STREAMS} connections; "
        f"{ASKED_GBPS:.0f} are asked between nodes"
    )
    remedy = (
        "use the fast card's address (ip -br address; NCCL_SOCKET_IFNAME); jumbo frames; measure while the cores have nothing "
        "else to do; pipeline parallelism needs less than tensor parallelism. RDMA is not measured here"
    )
    enough = min(found.sent, found.taken) >= ASKED_GBPS * _NEARLY * 1e9
    yield good("bandwidth", text) if enough else poor("bandwidth", text, remedy)
    ordered = sorted(found.latencies)
    middle, late = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    text = f"{middle * 1e6:,.0f} µs there and back, 1% over {late * 1e6:,.0f} µs"
    remedy = "machines of one rack, no tunnel or VPN between; interrupts of the card on near cores"
    yield good("latency", text) if middle <= _QUICK_S else poor("latency", text, remedy)
    way = "ahead" if found.skew > 0 else "behind"
    text = f"{found.host}'s is {abs(found.skew) * 1e3:.1f} ms {way}, to within {found.doubt * 1e3:.1f} ms"
    remedy = "as root, on both: systemctl enable --now chrony (or systemd-timesyncd); logs and traces do not match else"
    yield good("clocks", text) if abs(found.skew) - found.doubt <= _SKEW_S else poor("clocks", text, remedy)
    for port, (held, why) in found.ports.items():
        subject = f"port {port} there"
        if not why:
            yield good(subject, "can be reached" if held else "can be reached; a program there has it")
        elif held:
            yield bad(subject, f"cannot be reached: {why}", "open it in the firewall between the machines, for these two alone")
        else:
            yield unknown(
                subject, f"a program there has it, and does not answer here: {why}", "it may listen on 127.0.0.1 alone"
            )


def measure(host: str, port: int, seconds: float) -> Between:
    """Measure what lies between here and a doctor that listens.

    Raises:
        ServerError: it is not there, or goes away.
    """
    try:
        with _connected(host, port) as connection:
            line = Line(connection)
            line.say(**hello())
            other = line.hear()
            if other.get("hello") != HELLO:
                raise ServerError(f"{host}:{port} is no `triune doctor --listen`", _LISTEN)
            latencies, (skew, doubt) = _ping(line), _clock(line)
            sent = _stream(line, host, port, seconds / 2, "take")
            taken = _stream(line, host, port, seconds / 2, "send")
            ports = {int(number): (bool(free), _reached(host, int(number))) for number, free in other.get("ports", [])}
            line.say(do="bye")
    except OSError as error:
        raise ServerError(f"{host}:{port} cannot be reached: {error.strerror or error}", _LISTEN) from error
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(f"{host}:{port} answers otherwise than this version: {error!r}", _LISTEN) from error
    return Between(
        host=str(other.get("host", host)), version=str(other.get("version", "?")), latencies=latencies, skew=skew, doubt=doubt,
        sent=sent, taken=taken, ports=ports,
    )  # fmt: skip


_LISTEN = "there: triune doctor --listen PORT, and let the port through its firewall"


def _connected(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_CONNECT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(60.0)
    return connection


def _ping(line: Line) -> tuple[float, ...]:
    line.say(do="ping", count=_PINGS)
    found = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        line.connection.sendall(bytes(PING))
        line.read(PING)
        found.append(time.perf_counter() - began)
    return tuple(found)


def _clock(line: Line) -> tuple[float, float]:
    """How far the other clock is ahead, and what may be wrong of that: of the quickest answer, as NTP has it."""
    best = (0.0, float("inf"))
    for _ in range(_CLOCKS):
        asked = time.time()
        line.say(do="clock")
        said = line.hear()
        heard = time.time()
        came, went = float(said["came"]), float(said["went"])
        doubt = ((heard - asked) - (went - came)) / 2
        if doubt < best[1]:
            best = ((came - asked + went - heard) / 2, doubt)
    return best


def _stream(line: Line, host: str, port: int, seconds: float, there: str) -> float:
    """Bits a second of several connections together; `there` is what the other side does: take or send."""
    line.say(do=there, seconds=seconds, streams=_STREAMS)
    line.hear()
    taken: list[tuple[int, float]] = []
    with ExitStack() as stack:
        connections = [stack.enter_context(_connected(host, port)) for _ in range(_STREAMS)]

        def work(connection: socket.socket) -> None:
            with suppress(OSError):  # the other side went away, which the next line says
                if there == "take":
                    pour(connection, seconds)
                else:
                    taken.append(drink(connection))

        threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        said = line.hear()
    if there == "take":
        taken = [(int(said["bytes"]), float(said["seconds"]))]
    size, time_s = sum(one for one, _ in taken), max((one for _, one in taken), default=0.0)
    return size * 8 / time_s if time_s else 0.0


def _reached(host: str, port: int) -> str:
    """Why a port cannot be reached; empty: it can."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return ""
    except OSError as error:
        return error.strerror or str(error)


CHECKS = (network,)
