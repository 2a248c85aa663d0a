"""The extras of the distribution `triune`: which of their packages are not installed, and how that is told."""

from __future__ import annotations

import re
import sys
from importlib import metadata

from .errors import ServerError

# command -> the extra with the packages that it needs; a command that is not here needs none
EXTRAS = {
    "build": "builder", "verify": "builder", "plan": "builder", "compare": "builder",
    "serve": "server", "up": "server", "chat": "server", "load": "load", "gateway": "gateway",
}  # fmt: skip
_OWN = ("triune_builder", "triune_runtime", "triune_server", "triune_gateway")  # of this wheel
_REQUIREMENT = re.compile(r'([\w.-]+)[^;]*; extra == "([\w.-]+)"')  # as setuptools writes them


def missing(extra: str) -> list[str]:
    """Packages that `extra` itself asks for and that are not installed; empty where `triune` runs without being installed."""
    try:
        requirements = metadata.requires("triune") or []
    except metadata.PackageNotFoundError:
        return []
    asked = [match[1] for r in requirements if (match := _REQUIREMENT.match(r)) and match[2] == extra]
    return sorted(name for name in asked if not _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_server_packages(*, gateway: bool, traced: bool = False) -> None:
    """Make sure that the server's processes find what they import; imports nothing of it.

    Args:
        gateway: whether the OpenAI-compatible API is served, too, or the front before Triton's HTTP.
        traced: whether requests are traced.

    Raises:
        ServerError: names the packages that are not installed, and the extra that brings them.
    """
    if lacking := missing("server") + (missing("gateway") if gateway else []):
        raise ServerError(f"a server needs packages that are not installed: {', '.join(lacking)}", _install("server"))
    if traced and (lacking := missing("tracing")):
        raise ServerError(
            f"tracing needs packages that are not installed: {', '.join(lacking)}", f"{_install('tracing')}; or leave OTLP out"
        )


def notes() -> str:
    """For `triune --help`: one line for each extra that commands need and that is not installed."""
    lines = []
    for extra in dict.fromkeys(EXTRAS.values()):
        if missing(extra):
            commands = " and ".join(f"`triune {name}`" for name, needed in EXTRAS.items() if needed == extra)
            lines.append(f"{commands} can be used after: {_install(extra)}")
    return "\n".join(lines)


def tell_missing(error: ModuleNotFoundError, command: str) -> None:
    """Say on stderr which package `command` could not import, and the extra that brings it.

    Raises:
        ModuleNotFoundError: `error`, if it is about a module of our own or of Python's: a fault, not a missing package.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(command)
    if extra is None or package in sys.stdlib_module_names or package in _OWN:
        raise error
    print(f"error: `triune {command}` needs the package {package}, which is not installed", file=sys.stderr)
    print(f"\nhint: {_install(extra)}", file=sys.stderr)


def _install(extra: str) -> str:
    return f'pip install "triune[{extra}]"'
