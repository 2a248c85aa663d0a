"""python -m triune_gateway.kserve: serves Triton's KServe API, within bounds, until told to stop. Parses arguments, no more."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..access_log import AccessLog, JsonFormatter
from ..bearer import Keys
from ..certificate import both
from ..keys import read_keys
from ..tls import Tls
from .limits import Limits
from .listening import GrpcListener, Listener, serve
from .routes import API, METRICS
from .shared import Shared, Site


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if os.environ.get("TRIUNE_LOG_FORMAT") == "json":
        logging.getLogger().handlers[0].setFormatter(JsonFormatter())
    try:
        keys = Keys(read_keys(os.environ, args.api_keys_file))
        shared = Shared(Limits(), keys, AccessLog(args.access_log, source="kserve"), args.origins, args.fair_share)
        files = both(args.tls_cert, args.tls_key)
        tls = Tls(*files) if files else None
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ports = [
        Listener(args.http_port, Site(API, args.http_upstream, args.http_host)),
        Listener(args.metrics_port, Site(METRICS, args.metrics_upstream, args.metrics_host)),
    ]
    try:
        asyncio.run(serve(shared, ports, args.drain_s, _grpc(args, shared, tls), tls))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _grpc(args: argparse.Namespace, shared: Shared, tls: Tls | None) -> Callable[[], GrpcListener] | None:
    """What listens for gRPC, made in the event loop that serves; None where Triton itself does."""
    if not args.grpc_upstream:
        return None

    def make() -> GrpcListener:
        from .grpc import GrpcFront  # memory for those alone who use it

        front = GrpcFront(shared, args.grpc_upstream, tls, args.grpc_connection_s)
        return GrpcListener(args.grpc_host, args.grpc_port, front)

    return make


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="triune_gateway.kserve", description="Serve Triton's HTTP and metrics, within bounds")
    for name, what in (("http", "KServe's API"), ("metrics", "metrics"), ("grpc", "gRPC")):
        parser.add_argument(
            f"--{name}-host", default="127.0.0.1", metavar="ADDRESS", help=f"to listen on, of {what} (default %(default)s)"
        )
    parser.add_argument("--http-port", type=int, default=8000, metavar="PORT", help="of KServe's API (default %(default)s)")
    parser.add_argument("--http-upstream", required=True, metavar="FILE", help="Unix socket of Triton's HTTP")
    parser.add_argument("--metrics-port", type=int, default=8002, metavar="PORT", help="of metrics (default %(default)s)")
    parser.add_argument("--metrics-upstream", required=True, metavar="FILE", help="Unix socket of Triton's metrics")
    parser.add_argument("--grpc-port", type=int, default=8001, metavar="PORT", help="of gRPC (default %(default)s)")
    parser.add_argument("--grpc-upstream", metavar="TARGET", help="Triton's gRPC (default: none, that port is Triton's own)")
    parser.add_argument(
        "--grpc-connection-s", type=int, default=0, metavar="S", help="after which a gRPC connection is replaced; 0: never"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate in PEM: TLS on all ports (default: none)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--drain-s", type=float, default=2.0, metavar="S", help="for answers under way at the end")
    parser.add_argument("--api-keys-file", type=Path, metavar="FILE", help="one key a line, as of the gateway")
    parser.add_argument(
        "--allow-origin", dest="origins", action="append", default=[], metavar="URL",
        help="a web page elsewhere that may call this; may be repeated",
    )  # fmt: skip
    parser.add_argument("--fair-share", action="store_true", help="tell the server behind whose each request is")
    parser.add_argument("--access-log", metavar="FILE", help="gets a JSON line for every request; -: the standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
