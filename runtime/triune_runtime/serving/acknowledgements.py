"""How the detokenize step tells the generate step which chunks it has seen, and whether their client is still there.

Triton cancels the next step of an ensemble when a client leaves, never the generator: this is how the generator learns of it.
Both steps are processes of one server, so the socket's name comes from their common parent, and from the folder of the engine
that they serve: a server may have several.

Other users must not be able to send: the socket lies in a folder of this user alone. Where no such folder can be made it has a
name without a file, which anyone may send to. Either way, who sends is told by the kernel with each message, and only processes
of this server are listened to.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOG = logging.getLogger(__name__)
_MESSAGE = struct.Struct("<qB")  # request key; 1: its client has left
_SENDER = struct.Struct("3i")  # pid, uid and gid, as the kernel says them
_ROOM = socket.CMSG_SPACE(_SENDER.size)
_PLACES = (os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/dev/shm")  # the folder made there is nobody else's
_KNOWN_S = 1.0  # how long a process is believed to be what it was
_PAUSE_S = 0.1  # after an error of the system


def private_files(what: str, server_pid: int, engine: Path | None) -> list[Path]:
    """Where a file that the processes of one server share, for one engine, may be, the best place first."""
    folders = (Path(place) / f"triune-{os.geteuid()}" for place in _PLACES if place)
    return [folder / _name(what, server_pid, engine) for folder in folders if _private(folder)]


def _name(what: str, server_pid: int, engine: Path | None) -> str:
    which = "" if engine is None else f"-{hashlib.sha256(os.fsencode(engine)).hexdigest()[:16]}"
    return f"{what}-{server_pid}{which}"


def _socket_names(server_pid: int, engine: Path | None) -> list[str]:
    """Where the socket of an engine of a server may be, the best place first; the last one has no file."""
    what = ("acknowledgements", server_pid, engine)
    return [*map(str, private_files(*what)), f"\0triune-{_name(*what)}"]


def _private(folder: Path) -> bool:
    """Whether a folder is there, or could be made, that no other user can look into."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


class AcknowledgementSender:
    """The detokenize side. Never blocks for long and never fails a request: a lost message is like a slow one."""

    def __init__(self, server_pid: int | None = None, engine: Path | None = None) -> None:
        self._names = _socket_names(server_pid or os.getppid(), engine)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.1)

    def send(self, key: int, *, cancelled: bool) -> bool:
        """Acknowledge a chunk of request `key`; False if nobody listens."""
        for name in self._names:
            try:
                self._socket.sendto(_MESSAGE.pack(key, cancelled), name)
            except (FileNotFoundError, ConnectionRefusedError):  # perhaps it could not be bound there
                continue
            except OSError:
                return False
            return True
        return False

    def close(self) -> None:
        self._socket.close()


class AcknowledgementReceiver:
    """The generate side: a thread that hands each message to `acknowledge(key, cancelled=...)`."""

    def __init__(self, acknowledge: Callable[..., None], server_pid: int | None = None, engine: Path | None = None) -> None:
        self._acknowledge = acknowledge
        self._server_pid = server_pid or os.getppid()
        self._known: dict[int, tuple[bool, float]] = {}  # pid -> whether it is one of the server's, and until when
        self._closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._name = self._bind(_socket_names(self._server_pid, engine))
        self._thread = threading.Thread(target=self._receive_until_closed, name="triune-acknowledgements", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as waker, contextlib.suppress(OSError):
            waker.sendto(b"", self._name)
        self._thread.join()
        self._socket.close()
        if self._name[0] != "\0":
            Path(self._name).unlink(missing_ok=True)

    def _bind(self, names: list[str]) -> str:
        for name in names[:-1]:
            with contextlib.suppress(OSError):
                _sweep(Path(name).parent)
                self._socket.bind(name)
                return name
        LOG.warning("no folder for this user alone can be made in %s: any user can send to the socket", ", ".join(_PLACES))
        self._socket.bind(names[-1])
        return names[-1]

    def _receive_until_closed(self) -> None:
        while not self._closed:
            try:
                message, ancillary, _, _ = self._socket.recvmsg(_MESSAGE.size + 1, _ROOM)
                if len(message) == _MESSAGE.size and self._listens_to(ancillary):
                    key, cancelled = _MESSAGE.unpack(message)
                    if cancelled in (0, 1):
                        self._acknowledge(key, cancelled=bool(cancelled))
            except OSError:
                if not self._closed:
                    LOG.exception("no acknowledgement can be received")
                    time.sleep(_PAUSE_S)
            except Exception:  # one message's, not the thread's: without it nobody's leaving is noticed
                LOG.exception("an acknowledgement could not be handed on")

    def _listens_to(self, ancillary: list[tuple[int, int, bytes]]) -> bool:
        """Whether a message comes from a process of the server."""
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= _SENDER.size:
                pid, uid, _ = _SENDER.unpack_from(data)
                return uid == os.geteuid() and self._is_the_servers(pid)
        return False

    def _is_the_servers(self, pid: int) -> bool:
        if pid == os.getpid():
            return True
        now = time.monotonic()
        found, until = self._known.get(pid, (False, 0.0))
        if now >= until:
            if len(self._known) > 100:
                self._known.clear()
            found = _parent(pid) == self._server_pid
            self._known[pid] = found, now + _KNOWN_S
        return found


def _parent(pid: int) -> int | None:
    """The process that has started another; None: it is not to be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return int(fields[1])
    except (OSError, ValueError, IndexError):
        return None


def _sweep(folder: Path) -> None:
    """Remove the sockets that nobody listens at: of processes that were killed."""
    for path in folder.glob("acknowledgements-*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
