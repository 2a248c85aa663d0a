"""Ctrl-C as a terminal sends it: SIGINT to every process of the group; and what is still running afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Ended:
    """How a command ended after ctrl-C."""

    done: bool  # before ctrl-C came
    code: int
    said: str
    seconds: float  # that it took to end

    @property
    def quietly(self) -> bool:
        """Whether it ended as the interrupted do, and said it in one line."""
        if self.done:
            return self.code == 0
        words = [line for line in self.said.replace("\r", "\n").splitlines() if "nterrupt" in line or "130" in line]
        return (
            self.code in (130, -signal.SIGINT) and len(words) == 1 and not re.search(r"Traceback|Exception|Aborted", self.said)
        )


def interrupt(command: Sequence[str], after_s: float, env: Mapping[str, str], cwd: Path | None = None) -> Ended:
    """Run a command in a group of its own, and press ctrl-C after so many seconds."""
    process = subprocess.Popen(
        command, env=env, cwd=cwd, start_new_session=True, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=after_s)
        return Ended(True, process.returncode, said, 0.0)
    except subprocess.TimeoutExpired:
        began = time.monotonic()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate()[0] + "\nException: it went on after ctrl-C"
    return Ended(False, process.returncode, said, time.monotonic() - began)


def hears_ctrl_c() -> None:
    """In a new process: tests that run in the background of a script are deaf to it, and so is what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def leftover(folder: Path) -> list[str]:
    """The processes that run in `folder` or have it on their command line, but ours."""
    found = []
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
        about = process.info
        text = " ".join([*(about["cmdline"] or ()), about["cwd"] or ""])
        if about["pid"] not in ours and str(folder) in text and about["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{about['pid']}: {text}")
    return found
