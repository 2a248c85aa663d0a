"""The processes of a server under test, found by descent alone: no name, no file and no word of the server's is believed.

Whatever loses its parent becomes a child of this process, so nothing can leave the family by having its parent killed.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl
STUB = "triton_python"  # a process's name has 15 letters at most
SUPERVISOR, TRITON, GATEWAY, FRONT = "supervisor", "tritonserver", "gateway", "front"
_FRONT_MODULE = "triune_gateway.kserve"
RENDERER = "renderer"  # of chats: tokenize and tokenize_2d have one each, from the first chat on
_RENDERER_MODULE = ".rendering_process import "


def adopt_orphans(*, on: bool = True) -> None:
    """Have processes below this one become its children when their parent ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt orphans")


def family(*, known: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """All processes below this one that run, but for the `known` ones, by process id.

    Those that have ended and nobody waits for are waited for, as the first process of a machine does.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
            elif process.ppid() == os.getpid():
                _reap(process.pid, known)
    return [process for process in found if process.pid not in known]


def _reap(pid: int, known: frozenset[int]) -> None:
    if pid not in known:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def role_of(process: psutil.Process) -> str:
    """What a process is in a server: by its program, and of a Python process by its module or model. Empty if it has ended."""
    try:
        words, name = process.cmdline(), process.name()
    except psutil.Error:
        return ""
    if name.startswith(STUB):
        return next((Path(word).parents[1].name for word in words if word.endswith("/1/model.py")), name)
    if "-m" in words[:-1]:
        module = words[words.index("-m") + 1]
        if module == _FRONT_MODULE:
            return FRONT
        module = module.partition(".")[0]
        verb = words[words.index("-m") + 2 : words.index("-m") + 3]
        if module == "triune_server":
            return SUPERVISOR if verb == ["serve"] else "command"
        return module.removeprefix("triune_")
    return RENDERER if any(_RENDERER_MODULE in word for word in words) else name


def wait_gone(timeout_s: float, known: frozenset[int] = frozenset()) -> list[psutil.Process]:
    """Wait until nobody of the family runs; who is left after so many seconds."""
    end = time.monotonic() + timeout_s
    while (left := family(known=known)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def kill_all(known: frozenset[int] = frozenset()) -> None:
    """End the whole family at once."""
    for _ in range(20):
        for process in family(known=known):
            with suppress(psutil.Error):
                process.kill()
        if not wait_gone(0.5, known):
            return
