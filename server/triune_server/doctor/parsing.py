"""What the command line names: another machine, and ports."""

from __future__ import annotations

from ..errors import ServerError

_MOST_PORTS = 64


def peer(text: str) -> tuple[str, int]:
    """HOST:PORT.

    Raises:
        ServerError: it is not that.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ServerError(f"--peer is {text!r}; HOST:PORT was expected", "as the other side prints it, e.g. 10.0.0.2:7000")
    return host.strip("[]"), int(port)


def ports(text: str) -> tuple[int, ...]:
    """Ports and ranges of them, e.g. 8000-8003,29500.

    Raises:
        ServerError: it is not that, or there are too many.
    """
    found = list[int]()
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        if not first.isdigit() or not (last or first).isdigit() or not 0 < int(first) <= int(last or first) < 1 << 16:
            raise ServerError(
                f"--ports has {part!r}; a port, or a range as 8000-8003, was expected", "e.g. --ports 8000-8003,29500"
            )
        found += range(int(first), int(last or first) + 1)[: _MOST_PORTS + 1]
    if len(found) > _MOST_PORTS:
        raise ServerError(f"--ports names over {_MOST_PORTS} ports", "name those that the servers use")
    return tuple(dict.fromkeys(found))
