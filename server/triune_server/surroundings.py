"""What the processes of a server have around them besides its options: where they log, who traces, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import leftovers, watchdog
from .options import ServerOptions


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Of every process of a server.

    Attributes:
        draining, stalled: the files of a `Drain` and a `Stalled`.
        room: what the paths begin with by which engines say how many places they have, see `room_files`.
        profile: what the paths begin with by which engines are asked for a profile, see `profile_files`.
        mark: what they are known by, see `leftovers.mark_of`.
        pulse: a descriptor that they say in that they live, see `watchdog`; None: nobody listens.
        log: a descriptor of this process's that gets the lines of requests; None: the process's own output does.
    """

    draining: Path | None = None
    stalled: Path | None = None
    room: Path | None = None
    profile: Path | None = None
    mark: str = ""
    pulse: int | None = None
    log: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a new process must inherit."""
        return tuple(one for one in (self.log, self.pulse) if one is not None)

    def environment(self, options: ServerOptions) -> Mapping[str, str]:
        """How a process is told."""
        return {
            leftovers.VARIABLE: self.mark,
            watchdog.VARIABLE: "" if self.pulse is None else str(self.pulse),
            "TRIUNE_DRAINING": str(self.draining or ""),
            "TRIUNE_ROOM": str(self.room or ""),
            "TRIUNE_PROFILE": str(self.profile or ""),
            "TRIUNE_LOG_FORMAT": options.log_format,
            "TRIUNE_LOG_TEXT": options.log_text,
            "TRIUNE_LOG_FD": "" if self.log is None else str(self.log),
            "TRIUNE_OTLP": options.otlp or "",
        }


NOTHING = Surroundings()
