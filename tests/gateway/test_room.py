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


def test_what_generate_says_is_known_by_every_name_of_the_model(beginning: bytes) -> None:
    generate, room = writer(), Room.of_environment()
    generate.say(1)
    assert [room.free(name) for name in ("triune", "ensemble", "triune_infer", "generate", "anything")] == [2] * 5
    generate.say(5)
    assert room.free("triune") == -2
    generate.close()


@pytest.mark.parametrize("step", ["tokenize", "tokenize_2d", "detokenize"])
def test_a_step_that_takes_no_place_is_never_refused(beginning: bytes, step: str) -> None:
    one, other = writer(), writer("named__generate")
    room = Room.of_environment()
    assert room.free("triune") == LIMIT
    assert room.free(f"named__{step}") is None
    assert room.free(step) is None
    one.close()
    other.close()


def test_each_of_several_models_has_its_own(beginning: bytes) -> None:
    one, other = writer("one__generate"), writer("other__generate")
    one.say(LIMIT)
    room = Room.of_environment()
    assert [room.free(name) for name in ("one", "one_infer", "one__generate")] == [0] * 3
    assert [room.free(name) for name in ("other", "other_infer", "other__generate")] == [LIMIT] * 3
    assert room.free("nobody's") is None
    one.close()
    other.close()


def test_one_that_comes_later_or_again_is_found_and_one_that_has_gone_is_not_believed(beginning: bytes) -> None:
    now = [1000.0]
    room = Room(beginning, lambda: now[0])
    assert room.free("triune") is None
    first = writer()
    assert room.free("triune") is None, "it is looked for once a second"
    now[0] += 1.5
    room = Room(beginning)
    assert room.free("triune") == LIMIT
    first.close()
    second = writer()
    second.say(1)
    assert Room(beginning).free("triune") == LIMIT - 1
    late = Room(beginning, lambda: time.monotonic() + 4.0)
    assert late.free("triune") is None, "nothing was said for some seconds"
    second.close()
    assert not list(Path(os.fsdecode(beginning)).parent.iterdir())


@pytest.mark.parametrize("content", [b"", b"short", None])
def test_what_is_no_such_file_is_passed_over(beginning: bytes, content: bytes | None) -> None:
    path = Path(os.fsdecode(beginning + b"-generate"))
    if content is None:
        path.symlink_to("/nowhere/at/all")
    else:
        path.write_bytes(content)
    assert Room(beginning).free("triune") is None


@pytest.mark.parametrize("name", ["", "..", "/", "a\0b", "\ud800", "x" * 5000, "../../etc/passwd", "__", "a__generate"])
def test_names_that_clients_make_up_are_names_like_others(beginning: bytes, name: str) -> None:
    generate = writer()
    assert Room(beginning).free(name) == LIMIT
    generate.close()


def test_without_being_told_where_nothing_is_known() -> None:
    assert Room.of_environment({}).free("triune") is None


def test_gates_pass_what_there_is_room_for_and_no_more(beginning: bytes) -> None:
    generate, gates = writer(), Gates(room=Room(beginning))
    sent = [gates.enter("triune", "me") for _ in range(LIMIT + 1)]
    assert [one is not None for one in sent] == [True] * LIMIT + [False], "what is on its way counts"
    assert sent[0] is not None
    sent[0].taken()
    generate.say(1)
    assert gates.refuses("triune", "me"), "two places, and two on their way"
    sent[0].ended()
    generate.say(0)
    assert gates.enter("triune", "me") is not None
    generate.close()
