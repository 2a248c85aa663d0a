"""The process in which vLLM runs: started, told, listened to and ended. Knows no vLLM and no request.

It is the first of a process group of its own, as vLLM starts others. What it writes on its standard error goes to the server's
log, and its last lines are kept: vLLM says there alone why it does not start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any

from .protocol import Order, Told, read, written

LOG = logging.getLogger(__name__)
_KEPT_LINES = 2000
_END_S = 6.0  # for it to end in order
_LOG_S = 1.0  # for its last words to be read


class Host:
    """See the module. Any thread may write, one listens."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """
        Args:
            command: gets the descriptor that it answers on as a further argument.
            environment: all of it.

        Raises:
            OSError: it cannot be started.
        """
        answers, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs)], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, pass_fds=(theirs,), process_group=0,
            )  # fmt: skip
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(theirs)
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)  # of its log
        self._changed = threading.Condition()  # guards the two below
        self._told: deque[Told] = deque()
        self._over = False
        self._writing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._listen, args=(os.fdopen(answers, "rb"),), name="triune-vllm-told", daemon=True),
            threading.Thread(target=self._copy_log, name="triune-vllm-log", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def problem(self) -> str:
        """Why it tells nothing any more; empty: it does, or may."""
        with self._changed:
            return "its process has ended" if self._over and not self._told else ""

    def tell(self, order: Order) -> None:
        """Give it an order; one that nobody hears is lost, as `problem` then says."""
        line = written(order)
        assert self._process.stdin is not None, "it was asked for as a pipe"
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def told(self, wait_s: float) -> list[Told]:
        """All that it has told since this was asked last; waits for something if there is nothing."""
        with self._changed:
            if not self._told and not self._over:
                self._changed.wait(wait_s)
            found = list(self._told)
            self._told.clear()
            return found

    def end(self) -> None:
        """End it and all that it started, in order if that takes no longer than some seconds."""
        assert self._process.stdin is not None, "it was asked for as a pipe"
        with self._writing, contextlib.suppress(OSError):
            self._process.stdin.close()
        with self._changed:
            self._changed.wait_for(lambda: self._over, _END_S)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started at once."""
        if self._process.returncode is None:  # nobody has asked for its exit code: the group's number is nobody else's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join(_LOG_S)

    def _listen(self, answers: IO[bytes]) -> None:
        with answers:
            for line in answers:
                try:
                    told: Any = read(line)
                except ValueError:
                    LOG.exception("vLLM's process does not speak as it should")
                    break
                with self._changed:
                    self._told.append(told)
                    self._changed.notify()
        with self._changed:
            self._over = True
            self._changed.notify()

    def _copy_log(self) -> None:
        assert self._process.stdout is not None, "it was asked for as a pipe"
        with self._process.stdout as log:
            for raw in log:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self.lines.append(line)
                with contextlib.suppress(OSError, ValueError):
                    print(line, file=sys.stderr, flush=True)
