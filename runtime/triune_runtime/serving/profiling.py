"""Records steps for `triune profile`: whoever owns the server asks by a file in its run folder, and finds the record beside it.

Nothing of this can be reached by a network. While nobody asks, a file is looked for once a second.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..generation.generator import Generator
from ..generation.phases import Recording
from ..recorded import ASK, LONGEST_S
from ..worker import Worker

LOG = logging.getLogger(__name__)
VARIABLE = b"TRIUNE_PROFILE"  # of the environment: what the paths of the files begin with
_LONGEST_QUESTION = 4096  # bytes
_AT_ONCE = 500  # events that are written at a time: the thread that steps waits meanwhile
_SOON_S = 0.1


@dataclass(frozen=True)
class Question:
    """What is asked for."""

    name: str  # of the record
    seconds: float
    until: float  # seconds since the epoch: later, nobody waits for it any more


class Profiling:
    """Of one engine's process. One thread calls `look`, now and then."""

    def __init__(
        self,
        model: str,
        generator: Generator,
        worker: Worker,
        beginning: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            beginning: what the files' paths begin with; empty: there are none.
        """
        self._model, self._generator, self._worker, self._beginning = model, generator, worker, beginning
        self._clock = clock
        self._answered = ""
        self._recording: Recording | None = None
        self._question: Question | None = None
        self._ends_at = 0.0
        self._ended: threading.Event | None = None  # set when the stepping thread has taken note of the end

    @classmethod
    def of_environment(cls, model: str, generator: Generator, worker: Worker) -> Profiling:
        """By the paths that the environment names. Bytes: they may hold what Python's locale in Triton cannot say."""
        return cls(model, generator, worker, os.environb.get(VARIABLE, b""))

    def look(self) -> None:
        """Begin what is newly asked for; end what has taken its time, and write it. Never raises."""
        try:
            if self._recording is not None:
                self._end_if_due()
            elif self._beginning and (question := self._asked()) is not None:
                self._begin(question)
        except Exception:  # whatever it is, it must not keep the server from serving
            LOG.exception("steps cannot be recorded")
            self._recording = self._ended = None

    def patience(self, most: float) -> float:
        """Seconds until the next look is due."""
        return most if self._recording is None else min(most, max(self._ends_at - self._clock(), 0.01))

    def _asked(self) -> Question | None:
        try:
            descriptor = os.open(self._beginning + ASK.encode(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return None
            raw = json.loads(os.read(descriptor, _LONGEST_QUESTION) or b"{}")
            question = Question(str(raw["name"]), min(float(raw["seconds"]), LONGEST_S), float(raw["until"]))
        except (ValueError, LookupError, TypeError):  # half written
            return None
        finally:
            os.close(descriptor)
        fresh = question.name != self._answered and question.name.isalnum() and question.until > time.time()
        return question if fresh else None

    def _begin(self, question: Question) -> None:
        self._answered, self._question = question.name, question
        recording = self._recording = Recording(self._generator)
        self._ends_at = self._clock() + question.seconds
        self._worker.do(recording.begin)

    def _end_if_due(self) -> None:
        recording, question = self._recording, self._question
        if recording is None or question is None or self._clock() < self._ends_at:
            return
        if self._ended is None:
            self._ended = self._worker.do(recording.end)
        if self._ended.wait(_SOON_S):  # else it is in a long step: the next look asks again
            self._recording = self._ended = None
            if recording.began:  # else it has been logged why not
                self._write(recording, question)

    def _write(self, recording: Recording, question: Question) -> None:
        """A line about the record, then lines of events; whole or not at all."""
        path = self._beginning + f"-{question.name}-{os.getpid()}".encode("ascii")
        about = {
            "model": self._model,
            "pid": os.getpid(),
            "dropped": recording.dropped,
            "began": recording.began,
            "ended": recording.ended,
            "slots": self._generator.limits.max_sequences,
        }
        descriptor = os.open(path + b".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(json.dumps(about) + "\n")
            for start in range(0, len(recording.events), _AT_ONCE):
                file.write(json.dumps(recording.events[start : start + _AT_ONCE]) + "\n")
                time.sleep(0)
        os.replace(path + b".new", path)  # noqa: PTH105  # bytes
