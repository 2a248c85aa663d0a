"""Where the embedded Triton listens: Unix sockets in a folder that only this user can enter, not ports.

Whoever needs Triton itself, past the front, takes the address from here. The sockets of a server that was killed are in the way
of the next one, which Triton does not remove: `clear` does.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .leftovers import temporary_folder
from .options import ServerOptions

_LONGEST_PLACE = 60  # bytes of a path; that of a socket has 107 at most
_CLOSED = "model-repository,shared-memory,trace,logging"


@dataclass(frozen=True)
class Inside:
    """Addresses of one server.

    Attributes:
        folder: holds the sockets; a path short enough for them.
        secret: the header that opens Triton's control of models, shared memory, traces and logs. Nobody is told.
    """

    folder: Path
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def http(self) -> Path:
        return self.folder / "http"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics"

    @property
    def grpc(self) -> str:
        """As the target of a channel; Triton adds a port to any address."""
        return f"unix:{self.folder / 'grpc'}:1"

    @property
    def closed(self) -> str:
        """What is closed, and the secret, as Triton's options have it."""
        return f"{_CLOSED}:triune-control={self.secret}"

    def clear(self) -> None:
        """Remove the sockets of a server that has ended."""
        for file in self.folder.iterdir():
            file.unlink(missing_ok=True)


def listening(options: ServerOptions, inside: Inside | None) -> list[str]:
    """Triton's options that say where it listens, and what is closed. Over HTTP the list of models is not."""
    secret = Inside(Path()) if inside is None else inside
    closed = [f"--http-restricted-api={secret.closed.removeprefix('model-repository,')}"]
    closed.append(f"--grpc-restricted-protocol={secret.closed}")
    if inside is not None and options.own_grpc:
        closed += [f"--grpc-address={inside.grpc.removesuffix(':1')}", "--grpc-port=1"]
    else:
        closed += [f"--grpc-address={options.address('grpc')}", f"--grpc-port={options.grpc_port}"]
    if inside is not None:
        return [f"--http-address=unix:{inside.http}", f"--metrics-address=unix:{inside.metrics}", *closed]
    ports = [f"--http-port={options.http_port}", f"--metrics-port={options.metrics_port}"]
    hosts = [f"--http-address={options.address('http')}", f"--metrics-address={options.address('metrics')}"]
    return [*hosts, *ports, *closed]


@contextmanager
def opened(mark: str) -> Iterator[Inside]:
    """A folder for as long as the `with` block. Not in the run folder, whose path may be too long for a socket.

    Args:
        mark: see `leftovers.mark_of`.
    """
    with temporary_folder(mark, plain=len(os.fsencode(tempfile.gettempdir())) > _LONGEST_PLACE) as folder:
        yield Inside(folder)
