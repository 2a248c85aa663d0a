"""Who may acknowledge chunks, and what else comes in on the socket. Run: pytest tests/runtime/test_acknowledgements.py"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from triune_runtime.serving import acknowledgements
from triune_runtime.serving.acknowledgements import AcknowledgementReceiver, AcknowledgementSender

ENGINE = Path("/an/engine")
MESSAGE = b"\x07\0\0\0\0\0\0\0\x01"  # request 7, whose client has left


class Heard:
    """What a receiver hands on."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bool]] = []
        self._came = threading.Semaphore(0)

    def __call__(self, key: int, *, cancelled: bool) -> None:
        self.messages.append((key, cancelled))
        self._came.release()
        if key == 13:
            raise LookupError("nobody knows it")

    def wait(self) -> None:
        assert self._came.acquire(timeout=20)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a short name: the addresses of sockets are."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(acknowledgements, "_PLACES", (folder,))
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(params=["folder", "no folder"])
def heard(request: pytest.FixtureRequest, place: Path) -> Iterator[Heard]:
    if request.param == "no folder":
        (place / f"triune-{os.geteuid()}").write_text("somebody else was here first")
    found = Heard()
    receiver = AcknowledgementReceiver(found, engine=ENGINE)
    yield found
    receiver.close()


def addresses() -> list[str]:
    """Where the receiver's socket is."""
    return [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines() if "acknowledgements" in line]


def where() -> str:
    """The address of this process's own receiver; tests that run beside may have others."""
    engine = hashlib.sha256(bytes(ENGINE)).hexdigest()[:16]
    (found,) = [address for address in addresses() if f"acknowledgements-{os.getppid()}-{engine}" in address]
    return found.replace("@", "\0")


def test_what_is_sent_arrives(heard: Heard) -> None:
    sender = AcknowledgementSender(engine=ENGINE)
    assert sender.send(7, cancelled=False) and sender.send(-8, cancelled=True)
    heard.wait()
    heard.wait()
    assert heard.messages == [(7, False), (-8, True)]
    sender.close()


def test_what_is_malformed_is_passed_over(heard: Heard) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        for message in (b"", b"x", MESSAGE[:-1], MESSAGE + b"\0", b"x" * 5000, MESSAGE[:-1] + b"\x02"):
            any_socket.sendto(message, where())
    sender = AcknowledgementSender(engine=ENGINE)
    for key in (13, 9):  # also one that its receiver fails at
        assert sender.send(key, cancelled=False)
        heard.wait()
    assert heard.messages == [(13, False), (9, False)]
    sender.close()


STRANGER = """
import os, socket, sys
if {uid}: os.setgid({uid}); os.setuid({uid})
for _ in range(3):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto({message!r}, {address!r})
"""


@pytest.mark.parametrize("uid", [0, 12345], ids=["own user", "other user"])
def test_no_process_but_the_servers_own_is_listened_to(heard: Heard, uid: int) -> None:
    """A child of this process is none of the server, whose children are its siblings."""
    if uid and os.geteuid():
        pytest.skip("needs root, to become another user")
    program = STRANGER.format(uid=uid, message=MESSAGE, address=where())
    sent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    if uid and not where().startswith("\0"):
        assert "PermissionError" in sent.stderr
    else:
        assert sent.returncode == 0, sent.stderr
    sender = AcknowledgementSender(engine=ENGINE)
    assert sender.send(1, cancelled=False)
    heard.wait()
    assert heard.messages == [(1, False)]
    sender.close()


def test_the_socket_lies_in_a_folder_of_this_user_alone(place: Path) -> None:
    left = place / f"triune-{os.geteuid()}" / "acknowledgements-1-dead"
    left.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(left))
    receiver = AcknowledgementReceiver(Heard(), engine=ENGINE)
    address = Path(where())
    assert address.parent == left.parent and stat.S_IMODE(address.parent.stat().st_mode) == 0o700
    assert not left.exists()  # of a process that was killed
    receiver.close()
    assert not address.exists()
    left.parent.chmod(0o755)
    receiver = AcknowledgementReceiver(Heard(), engine=ENGINE)
    assert where().startswith("\0")
    receiver.close()
