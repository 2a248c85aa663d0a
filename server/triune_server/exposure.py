"""Who can reach a server, and with which key its own commands ask it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import ServerError
from .options import ServerOptions


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposed(options: ServerOptions) -> None:
    """Make sure that a server which a network reaches asks for keys, or is meant to do without.

    Raises:
        ServerError: neither; or keys are set that nobody would ask for.
    """
    if options.front == "off" and options.keyed:
        raise ServerError("FRONT=off talks to Triton directly, which asks for no API keys", "leave out FRONT=off, or the keys")
    if not is_loopback(options.host) and not options.keyed and options.insecure == "off":
        raise ServerError(
            f"{options.host} is open to a network, and no API keys are asked for",
            "set keys: API_KEY_FILE=FILE (--api-key-file); or say that everyone may use it: INSECURE=on (--insecure on)",
        )


def own_key(options: ServerOptions, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers with which a command of this machine's asks its own server; empty where no keys are asked for."""
    keys: list[str] = []
    file = options.api_key_file or environ.get("TRIUNE_API_KEYS_FILE")
    with suppress(OSError, UnicodeDecodeError):
        if file:
            keys = [line for line in Path(file).read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
        else:
            keys = environ.get("TRIUNE_API_KEYS", "").split(",")
    found = next((key.strip() for key in keys if key.strip()), None)
    # `KEY # NAME`: the name is not sent.
    return {"authorization": f"Bearer {found.rpartition(' # ')[0].strip() or found}"} if found else {}
