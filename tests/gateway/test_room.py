"""What an engine says of its room is known before the server, by whatever name a client asks.

Run: pytest tests/gateway/test_room.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from triune_gateway.gates import Gates
from triune_gateway.room import Room
from triune_runtime.serving import acknowledgements
from triune_runtime.serving.room import RoomWriter, link_of

LIMIT = 3


@pytest.fixture
def beginning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[bytes]:
    """Of the links' paths; the files they lead to are in a folder of this user alone."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(acknowledgements, "_PLACES", (folder,))
        monkeypatch.setenv("TRIUNE_ROOM", str(tmp_path / "[run] folder" / "room"))
        (tmp_path / "[run] folder").mkdir()
        yield os.fsencode(tmp_path / "[run] folder" / "room")


def writer(step: str = "generate") -> RoomWriter:
    return RoomWriter(LIMIT, os.getpid(), Path("/engines", step), link_of(step))


def free(room: Room, model: str) -> int | None:
    said = room.said(model)
    return None if said is None else said.free


def test_what_generate_says_is_known_by_every_name_of_the_model(beginning: bytes) -> None:
    generate, room = writer(), Room.of_environment()
    generate.say(1)
    assert [free(room, name) for name in ("triune", "ensemble", "triune_infer", "generate", "anything")] == [2] * 5
    generate.say(5)
    assert free(room, "triune") == -2
    generate.close()


@pytest.mark.parametrize("step", ["tokenize", "tokenize_2d", "detokenize"])
def test_a_step_that_takes_no_place_is_never_refused(beginning: bytes, step: str) -> None:
    one, other = writer(), writer("named__generate")
    room = Room.of_environment()
    assert free(room, "triune") == LIMIT
    assert free(room, f"named__{step}") is None
    assert free(room, step) is None
    one.close()
    other.close()


def test_each_of_several_models_has_its_own(beginning: bytes) -> None:
    one, other = writer("one__generate"), writer("other__generate")
    one.say(LIMIT)
    room = Room.of_environment()
    assert [free(room, name) for name in ("one", "one_infer", "one__generate")] == [0] * 3
    assert [free(room, name) for name in ("other", "other_infer", "other__generate")] == [LIMIT] * 3
    assert free(room, "nobody's") is None
    one.close()
    other.close()


def test_one_that_comes_later_or_again_is_found_and_one_that_has_gone_is_not_believed(beginning: bytes) -> None:
    now = [1000.0]
    room = Room(beginning, lambda: now[0])
    assert free(room, "triune") is None
    first = writer()
    assert free(room, "triune") is None, "it is looked for once a second"
    now[0] += 1.5
    room = Room(beginning)
    assert free(room, "triune") == LIMIT
    first.close()
    second = writer()
    second.say(1)
    assert free(Room(beginning), "triune") == LIMIT - 1
    late = Room(beginning, lambda: time.monotonic() + 4.0)
    assert free(late, "triune") is None, "nothing was said for some seconds"
    second.close()
    assert not list(Path(os.fsdecode(beginning)).parent.iterdir())


@pytest.mark.parametrize("content", [b"", b"short", None])
def test_what_is_no_such_file_is_passed_over(beginning: bytes, content: bytes | None) -> None:
    path = Path(os.fsdecode(beginning + b"-generate"))
    if content is None:
        path.symlink_to("/nowhere/at/all")
    else:
        path.write_bytes(content)
    assert free(Room(beginning), "triune") is None


@pytest.mark.parametrize("name", ["", "..", "/", "a\0b", "\ud800", "x" * 5000, "../../etc/passwd", "__", "a__generate"])
def test_names_that_clients_make_up_are_names_like_others(beginning: bytes, name: str) -> None:
    generate = writer()
    assert free(Room(beginning), name) == LIMIT
    generate.close()


def test_without_being_told_where_nothing_is_known() -> None:
    assert free(Room.of_environment({}), "triune") is None


def test_gates_pass_what_there_is_room_for_and_no_more(beginning: bytes) -> None:
    generate, gates = writer(), Gates(room=Room(beginning))
    sent = [gates.enter("triune", "me") for _ in range(LIMIT + 1)]
    assert [one is not None for one in sent] == [True] * LIMIT + [False], "what is on its way counts"
    generate.say(1)
    assert gates.refuses("triune", "me"), "one has come, two are on their way"
    generate.say(2)
    generate.say(1)
    last = gates.enter("triune", "me")
    assert last is not None, "two have come and one has left: one is on its way to two places"
    assert gates.refuses("triune", "me")
    last.failed("overloaded", None)
    assert not gates.refuses("triune", "me"), "what was refused is not on its way"
    generate.close()


def test_all_places_can_be_taken_at_once_however_long_the_answers_wait(beginning: bytes) -> None:
    """What has come counts once, not among those on their way as well."""
    generate, gates = writer(), Gates(room=Room(beginning))
    for here in range(1, LIMIT + 1):
        assert gates.enter("triune", "me") is not None, here
        generate.say(here)
    assert gates.enter("triune", "me") is None
    generate.close()
