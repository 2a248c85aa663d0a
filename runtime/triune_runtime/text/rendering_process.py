"""The process that compiles and renders chat templates for `Renderer`, and ends itself when one takes too long."""

from __future__ import annotations

import json
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from .framing import receive, send_bytes
from .sandbox import TemplateEnvironment

_SHOWN = 300  # letters of what a template says
_LONGEST = 32 << 20  # bytes of a rendered chat, which whoever asked must hold
_STATM = Path("/proc/self/statm")


class Templates:
    """Templates, by their numbers."""

    def __init__(self, memory: int) -> None:
        self._environment = TemplateEnvironment()
        self._compiled: dict[int, jinja2.Template] = {}
        self._over = f"takes more than {memory >> 20} MiB of memory"

    def reply(self, message: bytes) -> bytes:
        """The answer to a message: `Renderer` knows both."""
        try:
            made = json.dumps({"made": self._made(*json.loads(message))}, ensure_ascii=False).encode("utf-8", "surrogatepass")
            if len(made) <= _LONGEST:
                return made
            answer: dict[str, Any] = {"over": f"makes more than {_LONGEST >> 20} MiB of text"}
        except MemoryError:  # what there is left lies in pieces
            answer = {"over": self._over, "ends": True}
        except Exception as error:
            answer = {"failed": _said(error), "line": _line(error)}
        return json.dumps(answer).encode()

    def _made(self, number: int, source: str | None, variables: dict[str, Any] | None) -> Any:
        """A rendered chat; without variables, those that a new template reads."""
        if source is not None:
            self._compiled[number] = self._environment.from_string(source)
        if variables is not None:
            return self._compiled[number].render(variables)
        assert source is not None, "it is to be compiled"
        return sorted(jinja2.meta.find_undeclared_variables(self._environment.parse(source)))


def _said(error: Exception) -> str:
    """What went wrong in a template, in one line."""
    words = " ".join(str(error)[: 10 * _SHOWN].split())
    if not isinstance(error, jinja2.TemplateError):
        words = f"{type(error).__name__} {words}".strip()
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."


def _line(error: Exception) -> int | None:
    """The line of a template that an error comes from."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _bound(memory: int) -> None:
    """Let this process have so many more bytes than it has."""
    size = int(_STATM.read_text().split()[0]) * resource.getpagesize()
    for kind, wanted in ((resource.RLIMIT_AS, size + memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (most, most))


def main(seconds: float, memory: int) -> None:
    """Answer on standard input, a socket, until it is closed.

    Args:
        seconds: of processor time for each message; then the kernel ends this process.
        memory: bytes, for all of them together.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whoever started it may have let it be ignored
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])
    templates, connection = Templates(memory), socket.socket(fileno=0)
    _bound(memory)
    send_bytes(connection, b"")
    while True:
        try:
            message = receive(connection)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            answer = templates.reply(message)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            send_bytes(connection, answer)
        except OSError:
            return
