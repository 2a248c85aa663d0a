"""Two doctors measure what lies between them; what they find is judged. Run: pytest tests/server/doctor/test_network.py"""

from __future__ import annotations

import dataclasses
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fakes.machine_files import machine
from support.real_server import free_port
from triune_server import __version__
from triune_server.doctor import parsing, peer, wire
from triune_server.doctor.finding import Verdict
from triune_server.doctor.listening import listen
from triune_server.doctor.peer import Between, judged, measure
from triune_server.doctor.wire import PING, Line, drink
from triune_server.errors import ServerError

WELL = Between(
    host="b", version=__version__, latencies=(20e-6,) * 100, skew=0.001, doubt=0.0001, sent=95e9, taken=95e9,
    ports={8000: (True, ""), 8001: (False, "")},
)  # fmt: skip


@contextmanager
def listening(*ports: int, patience_s: float = 20.0) -> Iterator[tuple[int, Callable[[], str]]]:
    """A doctor that listens: its port, and what it says at the end."""
    told: queue.Queue[int] = queue.Queue()
    said: queue.Queue[str | ServerError] = queue.Queue()

    def run() -> None:
        try:
            said.put(listen("127.0.0.1", 0, ports, patience_s, told.put))
        except ServerError as error:
            said.put(error)

    def result() -> str:
        found = said.get(timeout=30)
        if isinstance(found, ServerError):
            raise found
        return found

    thread = threading.Thread(target=run)
    thread.start()
    yield told.get(timeout=10), result
    thread.join(30)
    assert not thread.is_alive()


def test_two_doctors_measure_bandwidth_latency_clocks_and_ports() -> None:
    held, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    other = taken.getsockname()[1]
    with taken, listening(held, other) as (port, said):
        found = measure("127.0.0.1", port, 0.2)
        assert said() == f"{socket.gethostname()} (127.0.0.1)"
    assert found.version == __version__ and found.sent > 1e6 and found.taken > 1e6
    assert len(found.latencies) == 500 and min(found.latencies) > 0
    assert abs(found.skew) <= found.doubt + 1e-3  # it is the same clock
    assert found.ports == {held: (True, ""), other: (False, "")}


def test_where_all_is_well_everything_is_good() -> None:
    assert {one.verdict for one in judged(WELL)} == {Verdict.GOOD}


@pytest.mark.parametrize(
    ("change", "verdict", "said", "remedy"),
    [
        ({"sent": 9e9}, Verdict.POOR, "9.0 Gbit/s", "NCCL_SOCKET_IFNAME"),
        ({"taken": 9e9}, Verdict.POOR, "100 are asked", "jumbo"),
        ({"latencies": (2e-3,) * 100}, Verdict.POOR, "2,000 µs", "one rack"),
        ({"skew": -3.0}, Verdict.POOR, "3000.0 ms behind", "as root"),
        ({"ports": {8000: (True, "timed out")}}, Verdict.BAD, "timed out", "firewall"),
        ({"ports": {8000: (False, "Connection refused")}}, Verdict.UNKNOWN, "a program there has it", "127.0.0.1"),
    ],
)
def test_what_is_wrong_is_found_with_its_remedy(change: dict[str, object], verdict: Verdict, said: str, remedy: str) -> None:
    found = [one for one in judged(dataclasses.replace(WELL, **change)) if one.verdict is not Verdict.GOOD]  # type: ignore[arg-type]
    assert [one.verdict for one in found] == [verdict] and said in found[0].found and remedy in found[0].remedy


def test_clocks_that_may_be_equal_are_well() -> None:
    assert {one.verdict for one in judged(dataclasses.replace(WELL, skew=0.5, doubt=0.45))} == {Verdict.GOOD}


def test_nothing_is_measured_where_nobody_is_named_and_other_versions_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not list(peer.network(machine(tmp_path)))
    monkeypatch.setattr(peer, "measure", lambda host, port, seconds: dataclasses.replace(WELL, version="9.9"))
    found = list(peer.network(machine(tmp_path, peer=("b", 7000))))
    assert found[0].verdict is Verdict.POOR and "9.9" in found[0].found


def test_nobody_there_or_somebody_else_is_one_sentence_and_a_remedy() -> None:
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:\d+ cannot be reached: Connection refused") as caught:
        measure("127.0.0.1", free_port(), 0.1)
    assert "--listen" in (caught.value.hint or "")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match="the other side says"):
            measure("127.0.0.1", other.getsockname()[1], 0.1)
        thread.join(10)


@pytest.mark.parametrize("said", [{"came": "x", "went": 1}, {"came": 1}, {"came": None, "went": None}])
def test_a_listener_that_answers_otherwise_is_one_sentence_and_a_remedy(said: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                line = Line(connection)
                line.hear()
                line.say(hello="triune-doctor")
                line.hear()
                for _ in range(500):
                    line.read(PING)
                    connection.sendall(bytes(PING))
                line.hear()
                line.say(**said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match="answers otherwise than this version") as caught:
            measure("127.0.0.1", other.getsockname()[1], 0.1)
        thread.join(10)
    assert "--listen" in (caught.value.hint or "")


def test_who_sends_without_end_is_not_listened_to_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_SECONDS", -1 - wire._LATE_S)  # it has sent for too long with its first byte
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"x")
        with pytest.raises(TimeoutError, match="more is sent"):
            drink(here)


def test_who_is_no_doctor_is_let_go_and_the_next_one_is_served() -> None:
    with listening() as (port, said):
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"[" * 4000 + b"\n", b'{"hello": "other"}\n', b"x" * 10_000):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                with suppress(OSError):  # it is let go at the first line already
                    stranger.sendall(noise)
                    stranger.shutdown(socket.SHUT_WR)
                stranger.settimeout(10)
                with suppress(ConnectionResetError):  # what it had not read yet
                    assert stranger.recv(100) == b""
        assert measure("127.0.0.1", port, 0.1).sent
        assert "127.0.0.1" in said()


def test_a_peer_that_goes_away_and_one_that_asks_for_what_is_not_known_are_said() -> None:
    for words in ({}, {"do": "rm"}, {"do": "ping"}, {"do": "ping", "count": []}, {"do": "send", "seconds": "x", "streams": 1}):
        with listening() as (port, said), socket.create_connection(("127.0.0.1", port)) as connection:
            line = Line(connection)
            line.say(hello="triune-doctor", host="evil\x1b[2J")
            line.hear()
            if words:
                line.say(**words)
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(ServerError, match=r"evil\\x1b\[2J .* went away"):
                said()


def test_a_doctor_that_nobody_comes_to_ends_and_a_taken_port_is_said() -> None:
    with pytest.raises(ServerError, match="no peer came") as caught:
        listen("127.0.0.1", 0, (), 0.1, lambda port: None)
    assert "--peer" in (caught.value.hint or "")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServerError, match="cannot be used") as caught:
        listen("127.0.0.1", taken.getsockname()[1], (), 0.1, lambda port: None)
    assert "another" in (caught.value.hint or "")


def test_what_is_named_is_understood_or_refused() -> None:
    assert parsing.peer("[::1]:7000") == ("::1", 7000) and parsing.peer("b:1") == ("b", 1)
    assert parsing.ports("8000-8002, 29500,8001") == (8000, 8001, 8002, 29500) and parsing.ports("") == ()
    for wrong in ("b", "b:", ":1", "b:0", "b:65536", "b:x"):
        with pytest.raises(ServerError, match="HOST:PORT was expected"):
            parsing.peer(wrong)
    for wrong in ("x", "9-8", "0", "65536", "1-100"):
        with pytest.raises(ServerError, match="--ports"):
            parsing.ports(wrong)
