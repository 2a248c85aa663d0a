"""A subject in a process of its own, from the harness's side: asked, timed out, weighed, stopped. Knows no subject."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from .timing import Stream
from .worker import MARK

ROOT = Path(__file__).parents[1]
START_LIMIT_S = 180.0
ROUND_LIMIT_S = 300.0
STOP_LIMIT_S = 30.0
_SAMPLE_S = 0.1  # between two looks at the memory


class SubjectFailed(Exception):
    """A subject cannot be measured; the others can."""


class NotInstalled(SubjectFailed):
    """A subject's packages are missing."""


class Process:
    """A subject's process, from its start to the end of the `with` block."""

    def __init__(self, name: str, options: dict[str, Any], python: Path) -> None:
        """Start it and wait until it can be asked.

        Raises:
            NotInstalled: its Python or its packages are missing.
            SubjectFailed: it ended, or it took too long.
        """
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed by _stop
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", "bench.worker", name, json.dumps(options)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            )  # fmt: skip
        except OSError as error:
            raise NotInstalled(f"not installed: no Python for it ({error.strerror})") from None
        self._family = {psutil.Process(self._process.pid)}
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._collect, daemon=True).start()
        self._asked = 0
        try:
            reply = self._read(START_LIMIT_S)
            if "missing" in reply:
                raise NotInstalled(f"not installed: its Python has no package {reply['missing']}")
        except BaseException:
            self._stop()
            raise
        self._family.update(psutil.Process(self._process.pid).children(recursive=True))
        self.about: dict[str, Any] = reply["about"]

    def generate(self, streams: int, tokens: int) -> list[Stream]:
        """Have it answer `streams` new prompts at once.

        Raises:
            SubjectFailed: it ended or took too long.
        """
        asked = {"streams": streams, "tokens": tokens, "first": self._asked}
        self._asked += streams
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise SubjectFailed(f"ended with code {self._process.wait(STOP_LIMIT_S)}{self._last_words()}") from None
        reply = self._read(ROUND_LIMIT_S)
        return [Stream(sent, tuple((at, count) for at, count in arrivals)) for sent, arrivals in reply["streams"]]

    def memory_bytes(self) -> int:
        """Proportional set size of what serves: the processes that the subject started, or its own where it serves itself."""
        own = psutil.Process(self._process.pid)
        return sum(process.memory_full_info().pss for process in own.children(recursive=True) or [own])

    def loaded_memory_bytes(self, streams: int, tokens: int) -> int:
        """The most memory that was seen while it answered; to be asked when nothing is timed.

        Raises:
            SubjectFailed: see `generate`.
        """
        done, seen = threading.Event(), [self.memory_bytes()]

        def watch() -> None:
            with contextlib.suppress(psutil.Error):  # it ended: `generate` says so
                while not done.wait(_SAMPLE_S):
                    seen.append(self.memory_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            self.generate(streams, tokens)
        finally:
            done.set()
            watcher.join()
        return max(seen)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _read(self, limit_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise SubjectFailed(f"no answer within {limit_s:.0f} s") from None
        if line is None:
            raise SubjectFailed(f"ended with code {self._process.wait(STOP_LIMIT_S)}{self._last_words()}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                self._lines.put(line.removeprefix(MARK))
        self._lines.put(None)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""

    def _stop(self) -> None:
        """Let it end by itself, which ends what it started; then make sure, process by process."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended before it had read all
            self._process.stdin.close()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        _, left = psutil.wait_procs(self._family, timeout=5)
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=5)
        self._process.wait()
        self._errors.close()
