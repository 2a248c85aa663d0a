"""Who can reach a server, and with which key its own commands ask it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import ServerError
from .options import ServerOptions

PORTS = ("http", "grpc", "metrics", "openai")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposed(options: ServerOptions) -> None:
    """Make sure that a server which a network reaches asks for keys, or is meant to do without.

    Raises:
        ServerError: neither; or there are to be keys or TLS where nobody has them.
    """
    if options.front == "off" and options.keyed:
        raise ServerError("FRONT=off talks to Triton directly, which asks for no API keys", "leave out FRONT=off, or the keys")
    if options.front == "off" and options.tls_cert is not None:
        said = "FRONT=off talks to Triton directly, whose HTTP and metrics speak no TLS"
        raise ServerError(said, "leave out FRONT=off, or TLS_CERT and TLS_KEY")
    check_open(options)


def check_open(options: ServerOptions, names: Sequence[str] = PORTS) -> None:
    """The same of some ports, each by itself.

    Raises:
        ServerError: a network reaches one, and no keys are asked for.
    """
    for variable, host in opened(options, names).items():
        if not options.keyed and options.insecure == "off":
            raise ServerError(
                f"{host} is open to a network{'' if variable == 'HOST' else f' ({variable})'}, and no API keys are asked for",
                "set keys: API_KEY_FILE=FILE (--api-key-file); or say that everyone may use it: INSECURE=on (--insecure on)",
            )


def opened(options: ServerOptions, names: Sequence[str] = PORTS) -> dict[str, str]:
    """The addresses that a network reaches, of the ports that are served among `names`, by the variables that say them."""
    served = [name for name in names if f"{name.upper()}_PORT" in options.ports]
    places = {options.address_variable(name): options.address(name) for name in served}
    return {variable: host for variable, host in places.items() if not is_loopback(host)}


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
