"""How every command tells of an error: `error:` and `hint:` on stderr and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import TriuneError

IMAGE_VARIABLE = "TRIUNE_IN_IMAGE"  # in the environment of a process in one of the project's images: its name
FAILED = 1  # exit code of an error that was told
CRASHED = 70  # of one that nobody foresaw, as sysexits.h has it
_PIPE_CLOSED = 128 + 13  # of a command whose output nobody reads any more, as if the signal had ended it
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # what NumPy says of a full disk
_OF_THE_COMMAND_LINE = ("click.", "typer.")  # packages whose exceptions end a command in order

# How hints name make's verbs and variables. In an image there is no make.
_MAKE = re.compile(r"`?\bmake (engine|verify|up|serve|config|down|logs|status)\b((?: [A-Z_]+=(?:'[^']*'|[^\s`,;)]+))*)`?")
_VARIABLE = re.compile(r"(?:\bmake )?(?<![\w-])(?!(?:TRIUNE|CUDA|NVIDIA|LD|OMP|PYTHON)_)([A-Z][A-Z_]+)=(?=\S)")
_SAID = re.compile(r"([A-Z_]+)=('[^']*'|\S+)")
_VERBS = {"engine": "build", "up": "serve"}
_OF_DOCKER = {"down": "docker stop CONTAINER", "logs": "docker logs CONTAINER", "status": "docker ps"}

# What the system says -> what it means to the user, and the remedy.
_FULL = (
    "the disk is full",
    "free some space, or choose a folder on another disk, with make BUILD_DIR=FOLDER",
)
_REFUSED = ("is not permitted", "make it readable and writable for this user, or choose another file or folder")
_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EROFS: ("lies on a disk that is read-only", "choose another folder, with make BUILD_DIR=FOLDER or RUN_FOLDER=FOLDER"),
    errno.ENOENT: ("does not exist", "check the path; what was removed meanwhile has to be there"),
    errno.EEXIST: ("is in the way", "move it away, or choose another folder"),
    errno.ENOTDIR: ("has a file where a folder is needed", "move the file away, or choose another folder"),
    errno.EISDIR: ("is a folder; a file was expected", "name a file"),
    errno.ENAMETOOLONG: ("is too long for the name of a file", "choose a shorter name"),
    errno.ELOOP: ("is a link that leads back to itself", "mend the link"),
    errno.EMFILE: ("too many files are open", "allow more with `ulimit -n`"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs"),
    errno.EIO: ("the disk fails", "check the disk"),
    errno.EFBIG: ("is larger than the system lets a file be", "allow more with `ulimit -f`, or choose another disk"),
    errno.ENOMEM: ("there is not enough memory", "end other programs, or choose a smaller model"),
}  # fmt: skip
_WITHOUT_FILE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)  # clear without its name


@contextmanager
def errors_told(*, passing: tuple[type[BaseException], ...] = (ModuleNotFoundError,)) -> Iterator[None]:
    """Print an error and end the process: of our own and of the system's, with exit code 1, in a sentence with its remedy.

    Any other is a fault of ours: its traceback goes to a file, whose path is told, and the exit code is 70.

    Args:
        passing: what somebody further out tells.

    Raises:
        SystemExit: something was raised inside.
    """
    try:
        yield
    except passing:
        raise
    except TriuneError as error:
        tell(str(error.args[0]), error.hint)
        raise SystemExit(FAILED) from error
    except BrokenPipeError as error:
        with suppress(OSError):  # nor is anything written at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_PIPE_CLOSED) from error
    except Exception as error:
        if type(error).__module__.startswith(_OF_THE_COMMAND_LINE):
            raise
        if (found := _expected(error)) is not None:
            tell(*found)
            raise SystemExit(FAILED) from error
        tell(*_crash(error))
        raise SystemExit(CRASHED) from error


def tell(problem: str, hint: str | None = None) -> None:
    """Print an error and its remedy on stderr. Characters that steer a terminal are shown, not sent: names may hold them."""
    text = f"error: {problem}" + (f"\n\nhint: {in_place(hint)}" if hint else "")
    print(printable(text), file=sys.stderr, flush=True)


def image() -> str:
    """The image that this process runs in; empty: none of the project's."""
    return os.environ.get(IMAGE_VARIABLE, "")


def in_place(hint: str) -> str:
    """A hint by what can be done here: in an image, docker's words for make's."""
    if not (name := image()):
        return hint

    def of_docker(found: re.Match[str]) -> str:
        verb = found[1]
        options = "".join(f" --{said.lower().replace('_', '-')}={value}" for said, value in _SAID.findall(found[2]))
        return f"`{_OF_DOCKER.get(verb) or f'docker run ... {name} {_VERBS.get(verb, verb)}{options}'}`"

    return _VARIABLE.sub(r"-e TRIUNE_\1=", _MAKE.sub(of_docker, hint))


def printable(text: str) -> str:
    """`text` with control characters other than line breaks and tabs as escapes."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else ascii(c)[1:-1] for c in text)


def _expected(error: Exception) -> tuple[str, str] | None:
    """The sentence and the remedy for what a machine may do to anybody; None: a fault of ours."""
    if isinstance(error, MemoryError):
        return _SYSTEM[errno.ENOMEM]
    if not isinstance(error, OSError):
        return None
    if error.errno is None and _SHORT_WRITE.search(str(error)):
        return _FULL
    if error.errno not in _SYSTEM or (error.filename is None and error.errno not in _WITHOUT_FILE):
        return None
    words, hint = _SYSTEM[error.errno]
    if error.filename is None:
        return words, hint
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
    return (f"{words}: {name}" if error.errno in _WITHOUT_FILE else f"{name} {words}"), hint


def _crash(error: Exception) -> tuple[str, str]:
    from .crash import write_report  # rarely needed, and all commands begin here

    said = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    try:
        path: Path | str = write_report(error)
    except OSError as why:
        path = f"nowhere, as it cannot be written ({why.strerror})"
    return f"a fault of Triune's own ({said}); the report is in {path}", "report it, with that file"
