"""What generate says of its room reaches the steps before it, and nothing else has them refuse.

Run: pytest tests/runtime/test_room.py
"""

from __future__ import annotations

import itertools
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fakes.runtime import make_engine
from fakes.sinks import UNHURRIED, Client, hold_until, request
from triune_runtime.errors import Overloaded
from triune_runtime.request import Chunk
from triune_runtime.serving import acknowledgements
from triune_runtime.serving.room import RoomReader, RoomWriter
from triune_runtime.worker import Worker

ENGINE, LIMIT = Path("/an/engine"), 3


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user alone."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(acknowledgements, "_PLACES", (folder,))
        yield Path(folder) / f"triune-{os.geteuid()}"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of all processes."""
    found = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: found[0])
    return found


def writer() -> RoomWriter:
    return RoomWriter(LIMIT, engine=ENGINE, server_pid=os.getpid())


def reader(model: str = "tokenize", engine: Path = ENGINE, pid: int | None = None) -> RoomReader:
    return RoomReader(model, engine=engine, server_pid=pid or os.getpid())


def refuses(one: RoomReader, **tensors: object) -> bool:
    try:
        one.check(lambda: {name: np.array([value]) for name, value in tensors.items()})
    except Overloaded:
        return True
    return False


def test_it_is_full_while_generate_says_so(place: Path, now: list[float]) -> None:
    generate, before = writer(), reader()
    for here, full in ((2, False), (3, True), (4, True), (2, False), (3, True)):
        generate.say(here)
        assert refuses(before) == full
    assert not refuses(reader(engine=Path("/another"))) and not refuses(reader(pid=1)), "another engine, another server"


@pytest.mark.parametrize("name", ["cancel", "stop", "stop_request"])
def test_a_request_that_ends_another_goes_on(place: Path, now: list[float], name: str) -> None:
    generate, before = writer(), reader()
    generate.say(LIMIT)
    assert not refuses(before, **{name: True})
    assert refuses(before, **{name: False}) and refuses(before, **{name: b"a word"}) and refuses(before, text_input=b"a")


def test_what_is_not_said_again_holds_no_more(place: Path, now: list[float]) -> None:
    """Its process may have ended, and what it waits for is a request."""
    generate, before = writer(), reader()
    generate.say(LIMIT)
    for _ in range(10):
        now[0] += 1.0
        generate.refused()
        assert refuses(before)
    now[0] += 5.0
    assert not refuses(before)


def test_a_generate_that_comes_later_or_again_is_found(place: Path, now: list[float]) -> None:
    before = reader()
    assert not refuses(before)
    first = writer()
    first.say(LIMIT)
    now[0] += 1.0
    first.refused()
    assert refuses(before)
    first.close()
    assert not refuses(before) and not list(place.iterdir())
    second = writer()
    now[0] += 5.0
    second.say(LIMIT)
    assert refuses(before)


def test_a_generate_that_died_and_is_started_again_has_its_readers(place: Path, now: list[float]) -> None:
    generate, before = writer(), reader()
    generate.say(LIMIT)
    assert refuses(before)
    again = writer()
    assert not refuses(before)
    again.say(LIMIT)
    assert refuses(before)
    assert again.refused() == 1, "what was refused before has been counted"


def test_every_step_s_refusals_are_counted_once(place: Path, now: list[float]) -> None:
    generate = writer()
    steps = [reader(name) for name in ("tokenize", "a__tokenize_2d", "triune_infer", "ensemble_infer", "tokenize")]
    generate.say(LIMIT)
    assert all(refuses(one) for one in steps for _ in range(3))
    assert (generate.refused(), generate.refused()) == (15, 0)


def test_without_a_folder_of_this_user_alone_nobody_is_refused(place: Path, now: list[float]) -> None:
    place.write_text("somebody else was here first")
    generate, before = writer(), reader()
    generate.say(LIMIT)
    assert not refuses(before) and generate.refused() == 0
    generate.close()


def test_the_file_is_this_user_s_alone_and_those_of_servers_that_ended_go(place: Path) -> None:
    generate = writer()
    (file,) = place.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    old = file.with_name(f"room-{2**22 + 5}-0")
    old.write_bytes(b"")
    writer()
    assert not old.exists() and file.exists()
    generate.close()


def test_a_worker_says_how_many_requests_are_here_whenever_that_changes() -> None:
    said: list[int] = []
    let_go = threading.Event()
    worker = Worker(make_engine(max_sequences=2), UNHURRIED, said.append)
    clients = [Client(lambda client, item: hold_until(let_go)) for _ in range(3)]
    for key, client in enumerate(clients):
        worker.submit(request(key), client)
    assert max(said) == 3
    let_go.set()
    assert all(isinstance(client.last, Chunk) for client in clients)
    worker.close()
    assert said[-1] == 0
    assert all(before != after for before, after in itertools.pairwise(said)), "it is told of changes alone, not of chunks"
