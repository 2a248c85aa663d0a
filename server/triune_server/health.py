"""triune health: whether a server lives, can generate now, or does generate. For probes: quick to start, one line, 0 or 1."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .configuration import CONFIG_VARIABLE, FILE
from .draining_file import draining_file, stalled_file
from .exposure import own_key
from .options import ServerOptions
from .state import RUN_FOLDER, find_running

LIVE, READY, DEEP = "live", "ready", "deep"
_GENERATE = "/v2/models/triune/generate"
_ONE_TOKEN = {"text_input": "a", "max_tokens": 1}


class Unhealthy(Exception):
    """What is wrong, as one line."""


def check(options: ServerOptions, run_folder: Path, depth: str, timeout_s: float) -> str:
    """Look at a whole server; what to say of a healthy one.

    Args:
        depth: LIVE: its processes answer; READY: it can take a request now; DEEP: it has generated a token.

    Raises:
        Unhealthy: it is not.
    """
    live = depth == LIVE
    if not live and draining_file(run_folder).exists():
        raise Unhealthy("stopping: it takes no new requests")
    if depth == READY and (stalled := stalled_file(run_folder)).exists():
        raise Unhealthy(f"it hangs: {stalled.read_text('utf-8').strip() or 'a process gives no sign of life'}")
    _get(options.http_url, "/v2/health/live" if live else "/v2/health/ready", timeout_s)
    if not live:
        _get(options.http_url, "/v2/models/triune/ready", timeout_s)
    if options.openai_port:
        check_gateway(options.openai_url, LIVE if live else READY, timeout_s)
    if depth != DEEP:
        return depth
    status, text = _ask(options.http_url, _GENERATE, timeout_s, json.dumps(_ONE_TOKEN), own_key(options))
    if status != 200 and "[overloaded" in text:
        return "full: it refuses requests for want of room"
    if status != 200 or "text_output" not in text:
        raise Unhealthy(f"{options.http_url}{_GENERATE} answers {status}: {text[:200]!r}")
    return "generates"


def check_gateway(url: str, depth: str, timeout_s: float) -> str:
    """Look at a gateway, and the server behind it; as `check`."""
    found = json.loads(_get(url, f"/health/{depth}", timeout_s) or "{}")
    return str(found.get("status", depth))


def main(arguments: Sequence[str]) -> int:
    """Run the command line without its first word; the exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.gateway:
            said = check_gateway(args.gateway, args.depth, args.timeout_s)
        else:
            folder = args.run_folder or said_run_folder(os.environ)
            running = find_running(folder)
            if running is None:
                raise Unhealthy(f"no server is running (nothing in {folder})")
            said = check(running.options, folder, args.depth, args.timeout_s)
    except (Unhealthy, OSError, ValueError, http.client.HTTPException) as error:
        print(f"unhealthy: {error or type(error).__name__}")
        return 1
    print(f"healthy: {said}")
    return 0


def said_run_folder(environment: Mapping[str, str]) -> Path:
    """The run folder as the environment or triune.toml says it: what `configuration` reads, without all other settings."""
    if said := environment.get("TRIUNE_RUN_FOLDER"):
        return Path(said).expanduser()
    file = Path(environment.get(CONFIG_VARIABLE) or FILE).expanduser()
    try:
        return Path(str(tomllib.loads(file.read_text("utf-8"))["run_folder"])).expanduser()
    except (OSError, ValueError, KeyError):  # serving says what is wrong with it
        return RUN_FOLDER


def _get(url: str, path: str, timeout_s: float) -> str:
    status, text = _ask(url, path, timeout_s)
    if status != 200:
        raise Unhealthy(f"{url}{path} answers {status}{': ' + text[:200] if text else ''}")
    return text


def _ask(
    url: str, path: str, timeout_s: float, body: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Status and text of an answer. By Python's own client: others take longer to import than the answer takes."""
    parts = urlsplit(url)
    place = parts.hostname or "127.0.0.1", parts.port
    if parts.scheme == "https":  # its certificate has the name by which a network knows it
        any_name = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        any_name.check_hostname, any_name.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(*place, timeout=timeout_s, context=any_name)
    else:
        connection = http.client.HTTPConnection(*place, timeout=timeout_s)
    try:
        connection.request("GET" if body is None else "POST", path, body, {"connection": "close", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except OSError as error:
        raise Unhealthy(f"{url} does not answer: {error.strerror or error}") from None
    finally:
        connection.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="triune health", description="Say in one line whether a server is healthy: exit code 0, or 1."
    )
    depth = parser.add_mutually_exclusive_group()
    depth.set_defaults(depth=READY)
    for name, what in (
        (LIVE, "its processes answer"),
        (READY, "it can generate now (the default)"),
        (DEEP, "it generates a token, or is so busy that it refuses one"),
    ):
        depth.add_argument(f"--{name}", dest="depth", action="store_const", const=name, help=what)
    parser.add_argument("--gateway", metavar="URL", help="look at a gateway alone, e.g. http://127.0.0.1:8003")
    parser.add_argument("--run-folder", type=Path, metavar="FOLDER", help=f"of the server (default: {RUN_FOLDER}, or as set)")
    parser.add_argument("--timeout-s", type=float, default=5.0, metavar="S", help="for each answer (default %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
