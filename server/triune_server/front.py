"""The bounded front before Triton's KServe API as a process beside the server: started, watched, stopped."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import httpx

from .asking import ask
from .companions import CompanionProcess
from .inside import Inside
from .options import ServerOptions
from .surroundings import NOTHING, Surroundings

_DRAIN_S = 2  # for what it is still sending when the server behind has ended all


def front_command(options: ServerOptions, inside: Inside) -> list[str]:
    """Its command line. API keys come by a file or the environment, where other users cannot read them."""
    return [
        sys.executable, "-m", "triune_gateway.kserve", f"--drain-s={_DRAIN_S}",
        *_place("http", options.address("http"), options.http_port), f"--http-upstream={inside.http}",
        *_place("metrics", options.address("metrics"), options.metrics_port), f"--metrics-upstream={inside.metrics}",
        *(_grpc(options, inside) if options.own_grpc else []),
        *tls_arguments(options),
        *([f"--api-keys-file={options.api_key_file}"] if options.api_key_file else []),
        *(["--fair-share"] if options.fair_share != "off" else []),
        *(f"--allow-origin={page}" for page in options.cors),
        *([f"--access-log={log}"] if (log := _access_log(options)) else []),
    ]  # fmt: skip


def tls_arguments(options: ServerOptions) -> list[str]:
    """Of what listens beside the server, where it speaks TLS."""
    return [f"--tls-cert={options.tls_cert}", f"--tls-key={options.tls_key}"] if options.tls_cert is not None else []


def _grpc(options: ServerOptions, inside: Inside) -> list[str]:
    place = _place("grpc", options.address("grpc"), options.grpc_port)
    return [*place, f"--grpc-upstream={inside.grpc}", f"--grpc-connection-s={options.grpc_connection_s}"]


def _place(name: str, host: str, port: int) -> list[str]:
    return [f"--{name}-host={host}", f"--{name}-port={port}"]


def _access_log(options: ServerOptions) -> str | None:
    """A file of its own beside the gateway's: each sets its own aside when that has grown long."""
    if options.access_log is not None:
        return str(options.access_log.with_name(f"{options.access_log.stem}.kserve{options.access_log.suffix}"))
    return "-" if options.log_format == "json" else None


class Front(CompanionProcess):
    """A running front: it is ready when it answers, whatever the server behind does."""

    def __init__(self, options: ServerOptions, inside: Inside, log: Path, around: Surroundings = NOTHING) -> None:
        """Start it; its output goes to the end of `log`."""
        command = front_command(options, inside)
        super().__init__(command, "the HTTP front", partial(is_there, options), options, log, around, becomes="there")


def is_there(options: ServerOptions) -> bool:
    """Whether anything answers at the HTTP port."""
    try:
        ask(f"{options.http_url}/v2/health/live", timeout_s=2.0)
    except (httpx.HTTPError, OSError):
        return False
    return True
