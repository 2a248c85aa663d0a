"""Ctrl-C for commands that may end at any moment: what they began lies beside what is whole, and the next run goes on."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

SILENT = "TRIUNE_INTERRUPT_SILENT"  # in the environment of a command that another one runs, which speaks for both
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # and take away the line of progress that it was hidden for
_PATIENCE_S = 20.0  # for what was started: a server stops in order

# Make hears ctrl-C, too. It ends as the interrupted do if what it runs does so, too, and not before make has heard it.
_MAKE_S = 0.1


def end_on_interrupt() -> None:
    """From here on ctrl-C ends this process with code 130, and before it all that it has started.

    No exception is raised, which native code would hold up and destructors could lose. Under make nothing is said: make does.
    A process that was started deaf to ctrl-C, as in the background of a script, stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def raise_on_interrupt() -> None:
    """From here on ctrl-C raises KeyboardInterrupt, as usual."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        if "MAKELEVEL" not in os.environ and SILENT not in os.environ:
            os.write(2, b"interrupted\n")
    _end_children()
    if "MAKELEVEL" in os.environ:
        time.sleep(_MAKE_S)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(128 + number)


def _end_children() -> None:
    """End the processes that this one has started, in order where they can. Imports nothing: an import may be under way."""
    left = {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_S
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if not _has_ended(pid)}
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # it was waited for elsewhere
