"""python -m triune_gateway: serves the OpenAI-compatible API until it is told to stop. Parses arguments, no more."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .access_log import JsonFormatter
from .certificate import both
from .keys import KEYS_FILE_VARIABLE, KEYS_VARIABLE, read_keys
from .settings import Settings
from .tls import Tls

try:
    from triune_client.grpc import AsyncGrpcClient, GrpcClient

    from .app import create_app
    from .connections import configured
    from .running import Server
except ImportError as missing:
    raise SystemExit(f'error: the gateway cannot start: {missing}\n\nhint: pip install "triune[gateway]"') from missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = _parser()
    args = vars(parser.parse_args(arguments))
    keys_file = args.pop("api_keys_file")
    try:
        settings = Settings(
            **args | {"aliases": tuple(args["aliases"]), "allowed_origins": tuple(args["allowed_origins"])},
            api_keys=read_keys(os.environ, keys_file),
        )
        files = both(settings.tls_cert, settings.tls_key)
        tls = Tls(*files) if files else None
        GrpcClient(settings.grpc_url, **_trust(settings)).close()  # says what is wrong with these
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    as_json = os.environ.get("TRIUNE_LOG_FORMAT") == "json"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if as_json:
        logging.getLogger().handlers[0].setFormatter(JsonFormatter())
    try:
        server = _server(settings, tls)
    except ImportError as missing:
        print(f'error: tracing needs packages: {missing}\n\nhint: pip install "triune[tracing]"', file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the access log cannot be written: {error}", file=sys.stderr)
        return 2
    server.run()
    return 0 if server.started else 1


def _server(settings: Settings, tls: Tls | None) -> Server:
    def connect() -> AsyncGrpcClient:
        # Whoever calls this API tries again by itself, as the status tells it; twice would only be slower.
        return AsyncGrpcClient(
            settings.grpc_url, model=settings.model, timeout_s=settings.timeout_s, max_retries=0, **_trust(settings)
        )

    app = create_app(settings, connect, tls=tls)
    return Server(configured(app, settings, tls), app.state.serving.intake, settings.drain_s, tls)


def _trust(settings: Settings) -> dict[str, Any]:
    """By what the server behind is trusted."""
    return {"ca_file": settings.grpc_ca_file, "server_name": settings.grpc_server_name}


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(prog="triune_gateway", description="Serve the OpenAI-compatible API and its chat page")
    parser.add_argument("--host", default=default.host, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=default.port, help="port to listen on (default %(default)s)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate in PEM, for TLS (default: none)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument(
        "--grpc-url", default=default.grpc_url,
        help="gRPC port of the server behind, grpcs://HOST:PORT where it speaks TLS (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--grpc-ca-file", type=Path, metavar="FILE", help="certificates to trust that server by, in PEM")
    parser.add_argument("--grpc-server-name", metavar="NAME", help="in its certificate, where that is not its host")
    parser.add_argument("--model", default=default.model, help="its ensemble, served by this name (default %(default)s)")
    parser.add_argument(
        "--alias",
        dest="aliases",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name of the model; may be repeated",
    )
    parser.add_argument(
        "--models-file",
        type=Path,
        metavar="FILE",
        help='further models, read again when it changes: {"NAME": {"ensemble": ...}}',
    )
    parser.add_argument(
        "--drain-s", type=float, default=default.drain_s, metavar="S",
        help="seconds that requests under way get to end when this is told to stop (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--draining-file", type=Path, metavar="FILE", help="while it is there, new requests are refused")
    parser.add_argument("--stalled-file", type=Path, metavar="FILE", help="while it is there, this is not ready")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=default.timeout_s,
        metavar="S",
        help="longest silence of the server (default %(default)s)",
    )
    parser.add_argument(
        "--api-keys-file", type=Path, metavar="FILE",
        help=f"one key a line (default: the file that {KEYS_FILE_VARIABLE} names; or keys in {KEYS_VARIABLE}, split by commas)",
    )  # fmt: skip
    for name, what in (
        ("head_timeout_s", "to say what is asked, and between two requests"),
        ("body_timeout_s", "for the body of a request"),
        ("write_timeout_s", "that a client may read nothing of an answer that is there"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=float, default=getattr(default, name), metavar="S", help=f"seconds {what} (default %(default)s)"
        )
    for name, metavar, what in (
        ("max_body_bytes", "BYTES", "longest body of a request"),
        ("max_requests", "N", "requests served at once"),
        ("max_connections", "N", "open connections"),
        ("max_choices", "N", "answers to one request"),
        ("max_responses", "N", "answers of /v1/responses that are kept to go on from; 0: none"),
        ("max_responses_bytes", "BYTES", "most that they take"),
    ):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(
            option, type=int, default=getattr(default, name), metavar=metavar, help=f"{what} (default %(default)s)"
        )
    parser.add_argument(
        "--access-log", default=default.access_log, metavar="FILE",
        help="gets a JSON line for every request; -: the standard output (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--otlp", default=default.otlp, metavar="URL",
        help="collector for traces by OTLP over HTTP, e.g. http://127.0.0.1:4318 (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--responses-file", default=default.responses_file, metavar="FILE",
        help="the SQLite database they are kept in (default: memory, gone with the process)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-origin", dest="allowed_origins", action="append", default=[], metavar="URL",
        help="a web page elsewhere that may call this (CORS); may be repeated",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
