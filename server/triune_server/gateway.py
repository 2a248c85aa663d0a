"""The OpenAI-compatible API as a process beside the server: started, watched, stopped. Knows none of its requests."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx

from triune_runtime.command_line import image
from triune_runtime.manifest import EngineManifest

from .asking import ask
from .companions import CompanionProcess
from .errors import ServerError
from .front import tls_arguments
from .inside import Inside
from .options import ServerOptions
from .surroundings import NOTHING, Surroundings

_DRAIN_S = 2  # for what it is still sending when the server behind has ended all


def gateway_command(
    options: ServerOptions, models_file: Path | None = None, around: Surroundings = NOTHING, inside: Inside | None = None
) -> list[str]:
    """Its command line. API keys come by a file or the environment, where other users cannot read them."""
    behind = inside.grpc if inside is not None and options.own_grpc else options.grpc_url
    aliases = [*_engines(options.repository), *([options.name] if options.name else [])]
    return [
        sys.executable, "-m", "triune_gateway", f"--host={options.address('openai')}", f"--port={options.openai_port}",
        *tls_arguments(options),
        f"--grpc-url={behind}", *(f"--alias={alias}" for alias in aliases),
        *([f"--models-file={models_file}"] if models_file else []),
        *([f"--stalled-file={around.stalled}"] if around.stalled else []),
        *([f"--draining-file={around.draining}", f"--drain-s={_DRAIN_S}"] if around.draining else []),
        *([f"--api-keys-file={options.api_key_file}"] if options.api_key_file else []),
        *(f"--allow-origin={page}" for page in options.cors),
        *([f"--access-log={log}"] if (log := options.access_log or ("-" if options.log_format == "json" else None)) else []),
        *([f"--otlp={options.otlp}"] if options.otlp else []),
        *([f"--responses-file={options.responses_file}"] if options.responses_file else []),
    ]  # fmt: skip


def gateway_alone(options: ServerOptions, grpc_url: str, more: Sequence[str]) -> list[str]:
    """The command line of one without a server beside it.

    Args:
        options: how it listens; the repository, which need not be there, has a name for the model.
        grpc_url: of the server behind, as HOST:PORT.
        more: arguments of its own, see `python -m triune_gateway --help`.
    """
    return [
        *gateway_command(options),
        f"--grpc-url={grpc_url}",
        f"--drain-s={options.drain_s}",
        *more,
    ]  # what is said last counts


def _engines(repository: Path) -> list[str]:
    """What the engine of a repository is called, if it is there."""
    folder = repository / "generate" / "1"
    return [EngineManifest.load(folder).model] if folder.is_dir() else []


class Gateway(CompanionProcess):
    """A running gateway: it is ready when the server behind it is, too."""

    def __init__(
        self, options: ServerOptions, log: Path, models_file: Path | None = None, around: Surroundings = NOTHING,
        inside: Inside | None = None,
    ) -> None:  # fmt: skip
        """Start it; its output goes to the end of `log`.

        Args:
            models_file: what is served, see `view.View`; None: the one model that `options` name.
        """
        command = gateway_command(options, models_file, around, inside)
        super().__init__(command, "the OpenAI-compatible API", partial(is_gateway_ready, options), options, log, around)


def check_key_file(file: Path, *, private: bool = True) -> None:
    """Make sure that a file of API keys can be read, by this user alone.

    Args:
        private: whether it matters that others can read it, too: not of a secret that is mounted for a container alone.

    Raises:
        ServerError: it cannot, or others can.
    """
    remedy = f"chmod 600 {shlex.quote(str(file))}"
    if image():
        remedy = f"on the machine outside, with the file there: chown {os.geteuid()} FILE && chmod 600 FILE"
    try:
        mode, text = file.stat().st_mode, file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        hint = remedy if image() and isinstance(error, PermissionError) else "name a file of yours: API_KEY_FILE=FILE"
        raise ServerError(f"the API keys in {file} cannot be read: {said}", hint) from None
    if private and mode & 0o077:
        said = f"the API keys in {file} can be read by others (its mode is {stat.filemode(mode)})"
        raise ServerError(said, remedy)
    if not holds_a_key(text):
        raise ServerError(f"{file} holds no API key", "write one a line, or leave API_KEY_FILE out")


def holds_a_key(text: str) -> bool:
    """Whether a file of API keys with this text has one."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())


def is_gateway_ready(options: ServerOptions) -> bool:
    """Whether it answers, and the server behind it."""
    try:
        return ask(f"{options.openai_url}/health", timeout_s=2.0).status_code == 200
    except (httpx.HTTPError, OSError):
        return False
