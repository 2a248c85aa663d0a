"""The report of an error that nobody foresaw, written to a file: what was run, where, with what, and the traceback."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "triune",
    "triune-client",
    "triune-load",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "tokenizers",
    "typer",
    "click",
)
_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)  # in the name of an option or a variable
_PATHS = re.compile(r"[-_]file$", re.IGNORECASE)  # of such a name: it says where a secret lies, not which
_SHORTEST = 6  # characters of a secret: what is shorter would be found in any text
_HIDDEN = "***"


def write_report(error: BaseException) -> Path:
    """Write the report of `error`, which is readable for this user alone, into the folder for temporary files.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f"triune-crash-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(report(error, sys.argv, os.environ))
    return Path(name)


def report(error: BaseException, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Its text, in which the secrets of the command line and of the environment are hidden."""
    shown, secrets = _without_secrets(arguments)
    secrets += [value for name, value in environment.items() if _is_secret(name)]
    lines = [
        f"time      {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"command   {' '.join(map(repr, shown))}",
        f"folder    {_folder()}",
        f"python    {platform.python_version()}, {sys.executable}",
        f"machine   {platform.platform()}",
        f"packages  {', '.join(_versions(_PACKAGES))}",
        "",
        *traceback.format_exception(error),
    ]
    text = "\n".join(line.rstrip("\n") for line in lines) + "\n"
    for secret in sorted((s for s in secrets if len(s) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return text


def _without_secrets(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with the values of options that are secret hidden, and these values."""
    shown: list[str] = []
    secrets: list[str] = []
    of_secret = False  # whether the argument before is such an option, and has its value here
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if of_secret and not argument.startswith("--"):
            secrets.append(argument)
            shown.append(_HIDDEN)
            of_secret = False
        elif _is_secret(name) and (equals or name.startswith("-")):
            secrets += [value] if equals else []
            shown.append(f"{name}={_HIDDEN}" if equals else name)
            of_secret = not equals
        else:
            shown.append(argument)
            of_secret = False
    return shown, secrets


def _is_secret(name: str) -> bool:
    return bool(_SECRET.search(name)) and not _PATHS.search(name)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "gone"


def _versions(packages: Iterable[str]) -> list[str]:
    found = []
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
