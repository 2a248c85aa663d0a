"""What a fault is, and what it may use."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from .answers import CUT, ERROR, PATIENCE_S, REFUSED
from .crowd import Crowd
from .server import Server

NOTHING = frozenset[str]()  # bystanders see nothing of it: everyone is answered, rightly
BROKEN = frozenset({REFUSED, ERROR, CUT})  # bystanders may be refused, told an error or cut off; not kept waiting, not lied to

WELL, GONE, EITHER = "well", "gone", "either"


@dataclass
class Scene:
    """One fault as it happens.

    Attributes:
        number: of the fault in its run; with the seed, all that is random follows from it.
        undo: what must be undone when the fault is over, whatever becomes of it.
        problems: what the fault itself has found wrong.
        notes: what was done, for whoever reads the report.
    """

    server: Server
    number: int
    chance: random.Random
    undo: ExitStack
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    crowd: Crowd | None = None

    def note(self, what: str) -> None:
        """Write down what was done."""
        self.notes.append(what)

    def end_crowd(self) -> None:
        """Have bystanders ask no more, and wait for their last answers."""
        if self.crowd is not None:
            self.crowd.end()

    def wait(self, seconds: float) -> None:
        """Let bystanders ask for so long."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        do: does it, and returns when it is over.
        may: what bystanders may see besides right answers.
        then: what becomes of the server: it is WELL again; it has ended (GONE), and can be started at once; EITHER.
        well_s: seconds that this may take, from the end of `do`.
        crowd: bystanders; 0 where `do` brings its own load or starts the server.
        running: whether the server runs when it begins.
        swept_later: shared memory and a folder may stay until the next start: nobody is left who could remove them.
        patience_s: of its bystanders.
        deaths: how often it has the server start again, at the most.
        lacks: why it cannot be done here; empty if it can.
    """

    name: str
    do: Callable[[Scene], None]
    may: frozenset[str] = NOTHING
    then: str = WELL
    well_s: float = 30.0
    crowd: int = 8
    running: bool = True
    swept_later: bool = False
    deaths: int = 1
    patience_s: float = PATIENCE_S
    lacks: Callable[[Server], str] = lambda server: ""
