"""Splits a stream of server-sent events into the data of its events. Bytes in and out; only `data` is looked at."""

from __future__ import annotations


class SseSplitter:
    """Takes bytes in pieces of any size; lines end in \\n or \\r\\n."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` completes."""
        data = self._rest + piece if self._rest else piece
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        *events, self._rest = data.split(b"\n\n")
        return [found for event in events if (found := _data(event)) is not None]

    @property
    def rest(self) -> bytes:
        """An event that has not ended."""
        return self._rest.strip()


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
