"""What of a stack can be known before it is started: what containers cannot have, ports, files, limits. Starts nothing."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from triune_runtime.manifest import EngineManifest

from .errors import ServerError
from .exposure import check_open, is_loopback, opened
from .gateway import holds_a_key
from .launcher import check_ports
from .options import ServerOptions
from .shared_memory import LEAST as LEAST_SHARED
from .tls import check_tls

USER = 1000  # of the containers
OF_GPUS = ("cuda", "tensorrt")  # targets
_PROCESSES = 256 << 20  # bytes of a server's processes without an engine
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_DEFAULTS = {"TRIUNE_MEMORY": "16g", "TRIUNE_SHM": "1g"}  # of compose.yaml
_KEYS = ("TRIUNE_API_KEYS", "TRIUNE_API_KEYS_FILE")  # of the gateway's own
_PRIVILEGED = 1024  # ports below are docker's to open, not this user's to try


def check_carried(options: ServerOptions, environment: Mapping[str, str]) -> None:
    """Make sure that containers can have what was chosen, and what a gateway here would read of the environment.

    Raises:
        ServerError: names what they cannot.
    """
    for name in _KEYS:
        if environment.get(name) and options.api_key_file is None:
            said = f"{name} is set; containers have API keys by API_KEY_FILE alone"
            raise ServerError(said, f"say API_KEY_FILE=FILE, or unset {name}")
    for variable, host in opened(options, ("http", "grpc", "metrics")).items():
        if options.insecure == "off":
            raise ServerError(
                f"{variable} is {host}, and what containers publish of KServe asks for no API keys",
                f"leave {variable} out and open the gateways' port alone: OPENAI_HOST={host}; or say that everyone may use it:"
                " INSECURE=on",
            )
    check_open(options, ("openai",))
    if options.tls_cert is not None and not options.openai_port:
        said = f"TLS_CERT is {options.tls_cert}; in containers the gateways have it, and OPENAI_PORT=0 asks for none"
        raise ServerError(said, "leave TLS_CERT and TLS_KEY out, or OPENAI_PORT=0")
    if options.access_log is not None and str(options.access_log) != "-":
        raise ServerError(
            f"ACCESS_LOG is {options.access_log}; containers write no file, and their log has these lines anyway",
            "leave ACCESS_LOG out, or say ACCESS_LOG=-; `make logs` shows them",
        )
    if options.otlp is not None and is_loopback(urlsplit(options.otlp).hostname or ""):
        raise ServerError(
            f"OTLP is {options.otlp}, and that is in a container the container itself",
            "name the collector by an address that containers reach, of this machine or of a service: OTLP=http://HOST:4318",
        )


def gateways_of(options: ServerOptions, own: Mapping[str, str]) -> Sequence[int]:
    """The port of each gateway.

    Raises:
        ServerError: there are not as many as there are to be gateways.
    """
    said = own.get("TRIUNE_GATEWAYS") or "1"
    if not said.isdecimal():
        raise ServerError(f"TRIUNE_GATEWAYS is {said!r}; expected a whole number", "e.g. TRIUNE_GATEWAYS=2")
    number = int(said) if options.openai_port else 0
    ports = own.get("TRIUNE_OPENAI_PORTS") or str(options.openai_port)
    found = _PORTS.fullmatch(ports)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    example = f"TRIUNE_OPENAI_PORTS={options.openai_port or 8003}-{(options.openai_port or 8003) + max(number, 2) - 1}"
    if number and not 0 < first <= last < 1 << 16:
        raise ServerError(f"TRIUNE_OPENAI_PORTS is {ports!r}; expected a range of ports", f"e.g. {example}")
    if number > last - first + 1:
        raise ServerError(
            f"{number} gateways (TRIUNE_GATEWAYS) need as many ports; there is {last - first + 1}", f"name them: {example}"
        )
    return range(first, first + number)


def check_published(options: ServerOptions, gateways: Sequence[int], held: Sequence[int]) -> None:
    """Make sure that every port outside is free and used once.

    Args:
        held: by the stack that is replaced.

    Raises:
        ServerError: names the port, its variable and, where it can be seen, the process that holds it.
    """
    for port in gateways or (0,):
        one = dataclasses.replace(options, openai_port=port)
        barred = [port for port in one.ports.values() if port < _PRIVILEGED and os.geteuid()]
        check_ports(one, [*held, *barred])


def check_keys(file: Path, same_users: bool) -> None:
    """Make sure that a file of API keys can be read by the containers' user, and by nobody else.

    Args:
        same_users: whether a user's number is the same inside and outside.

    Raises:
        ServerError: it cannot, or others can read it, too.
    """
    quoted, sudo = shlex.quote(str(file)), "sudo " if os.geteuid() else ""
    private = f"{sudo}chmod 600 {quoted}"
    remedy = f"{sudo}chown {USER} {quoted} && {private}" if same_users else private
    try:
        found = file.stat()
    except OSError as error:
        raise ServerError(
            f"there are no API keys in {file}: {error.strerror}", "name a file of yours: API_KEY_FILE=FILE"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise ServerError(f"there are no API keys in {file}: it is no file", "name a file of yours: API_KEY_FILE=FILE")
    mode = stat.filemode(found.st_mode)
    if same_users and not _may(found, 4):
        raise ServerError(
            f"user {USER}, the containers', cannot read the API keys in {file} (user {found.st_uid}'s, {mode})", remedy
        )
    if found.st_mode & 0o077:
        raise ServerError(f"the API keys in {file} can be read by others (its mode is {mode})", remedy)
    try:
        text = file.read_text("utf-8")
    except OSError:
        return  # the containers' user's alone, and not this one's
    except UnicodeDecodeError as error:
        raise ServerError(
            f"the API keys in {file} cannot be read: {error}", "name a file of yours: API_KEY_FILE=FILE"
        ) from None
    if not holds_a_key(text):
        raise ServerError(f"{file} holds no API key", "write one a line, or leave API_KEY_FILE out")


def check_certificate(options: ServerOptions, same_users: bool) -> None:
    """Make sure that the containers' user can read the files of TLS, and that they can be used; on stderr, what is doubtful.

    Raises:
        ServerError: it cannot, or they cannot.
    """
    files = [file for file in (options.tls_cert, options.tls_key) if file is not None]
    for file in files:
        if same_users and file.is_file() and not _may(found := file.stat(), 4):
            raise ServerError(
                f"user {USER}, the containers', cannot read {file} (user {found.st_uid}'s, {stat.filemode(found.st_mode)})",
                f"{'sudo ' if os.geteuid() else ''}chown {USER} {shlex.quote(str(file))}",
            )
    if all(os.access(file, os.R_OK) or not file.exists() for file in files):  # else they are the containers' user's alone
        for note in check_tls(options):
            print(note, file=sys.stderr)


def check_responses(file: Path, gateways: int, same_users: bool) -> None:
    """Make sure that the one gateway there is can keep answers in a database.

    Raises:
        ServerError: there are several, or its folder cannot be written to.
    """
    if gateways > 1:
        raise ServerError(
            f"one gateway alone can use RESPONSES_FILE, and there are to be {gateways}", "leave TRIUNE_GATEWAYS out"
        )
    folder = file.parent
    if not folder.is_dir():
        raise ServerError(f"there is no folder {folder} for RESPONSES_FILE", f"mkdir {shlex.quote(str(folder))}")
    for path in (folder, file):
        if same_users and path.exists() and not _may(path.stat(), 2):
            raise ServerError(
                f"user {USER}, the containers', cannot write to {path}, where RESPONSES_FILE is to be",
                f"name one in a folder of its own, and: sudo chown -R {USER} FOLDER",
            )


def check_repository(repository: Path, same_users: bool) -> None:
    """Make sure that the containers' user can read a repository.

    Raises:
        ServerError: it cannot; names one file.
    """
    for path in (repository, *sorted(repository.rglob("*"))) if same_users else ():
        found = path.stat()
        if not _may(found, 4) or (stat.S_ISDIR(found.st_mode) and not _may(found, 1)):
            raise ServerError(
                f"user {USER}, the containers', cannot read {path} (user {found.st_uid}'s, {stat.filemode(found.st_mode)})",
                f"chmod -R a+rX {shlex.quote(str(repository))}",
            )


def check_limits(own: Mapping[str, str], engine: Path | None) -> None:
    """Make sure that the server's limits of memory are no smaller than what it begins with; on stderr, if it may outgrow them.

    Args:
        engine: the folder of engine.json; None: it is not built yet.

    Raises:
        ServerError: they are, or are no sizes.
    """
    limits = {name: _bytes(name, own.get(name) or default) for name, default in _DEFAULTS.items()}
    if limits["TRIUNE_SHM"] < LEAST_SHARED:
        raise ServerError(
            f"TRIUNE_SHM is {own['TRIUNE_SHM']}; Triton's processes share at least {LEAST_SHARED >> 20}m",
            "say more: TRIUNE_SHM=256m",
        )
    limit, said = limits["TRIUNE_MEMORY"], own.get("TRIUNE_MEMORY") or _DEFAULTS["TRIUNE_MEMORY"]
    manifest = EngineManifest.load(engine) if engine is not None else None
    here = manifest is not None and manifest.target not in OF_GPUS  # others' weights and slots lie in a GPU's memory
    files = engine.iterdir() if engine is not None and here else ()
    weights = sum(file.stat().st_size for file in files if file.suffix not in (".py", ".json", ".txt"))
    least = _PROCESSES + weights
    if 0 < limit < least:
        needs = f"the server needs {_said(least)}{' for this engine' * bool(weights)}"
        raise ServerError(f"TRIUNE_MEMORY is {said}; {needs}", f"say more: TRIUNE_MEMORY={_said(2 * least)}")
    if manifest is not None and here:
        full = least + manifest.limits.max_sequences * manifest.kv_bytes(manifest.limits.max_length)
        if 0 < limit < full:
            needs = f"with every slot full the server needs {_said(full)}, and is killed for more than TRIUNE_MEMORY, {said}"
            print(f"note: {needs}", file=sys.stderr)


def _may(found: os.stat_result, bit: int) -> bool:
    """Whether the containers' user, whose group has the same number, may read (4), write (2) or enter (1)."""
    shift = 6 if found.st_uid == USER else 3 if found.st_gid == USER else 0
    return bool(found.st_mode >> shift & bit)


def _bytes(name: str, said: str) -> float:
    found = _SIZE.fullmatch(said.strip())
    if found is None:
        raise ServerError(f"{name} is {said!r}; expected a size", f"e.g. {name}=4g")
    return float(found[1]) * (1 << 10 * " kmgt".index(found[2].lower() or " "))


def _said(size: float) -> str:
    """Rounded up."""
    mega = -int(-size // (1 << 20))
    return f"{mega}m" if mega < 2048 else f"{-(-mega // 1024)}g"
