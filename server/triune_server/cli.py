"""Commands of a server: serve, up, down, status, logs. Parses, calls, prints."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune_runtime.command_line import errors_told
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import check_runnable

from .background import look, start_in_background, stop_running
from .binaries import find_binaries
from .errors import ServerError
from .launcher import check_ports
from .options import ServerOptions
from .state import RUN_FOLDER, begin_log, find_running, log_file
from .supervisor import Supervisor, stop_on_signals

_DEFAULT = ServerOptions()
NOT_RUNNING = 3  # exit code of `status`, as of service managers

app = typer.Typer(help="Serve engines with Triton.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Repository = Annotated[Path, typer.Option(help="The Triton model repository to serve.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
HttpPort = Annotated[int, typer.Option(help="Port of HTTP.", min=1, max=65535)]
GrpcPort = Annotated[int, typer.Option(help="Port of gRPC.", min=1, max=65535)]
MetricsPort = Annotated[int, typer.Option(help="Port of Prometheus metrics.", min=1, max=65535)]
OpenaiPort = Annotated[int, typer.Option(help="Port of the OpenAI-compatible API and chat page; 0: none.", min=0, max=65535)]
RunFolder = Annotated[Path, typer.Option(help="Where state and log of the server lie.")]


@app.command()
def serve(
    repository: Repository = _DEFAULT.repository,
    host: Host = _DEFAULT.host,
    http_port: HttpPort = _DEFAULT.http_port,
    grpc_port: GrpcPort = _DEFAULT.grpc_port,
    metrics_port: MetricsPort = _DEFAULT.metrics_port,
    openai_port: OpenaiPort = _DEFAULT.openai_port,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Serve in the foreground until ctrl-C; a server that dies is started again."""
    options = ServerOptions(
        repository=repository, host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port,
        openai_port=openai_port,
    )  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with _errors_told():
        _check_repository(options)
        run_folder.mkdir(parents=True, exist_ok=True)
        begin_log(run_folder)
        supervisor = Supervisor(find_binaries(run_folder), options, run_folder)
        stop_on_signals(supervisor)
        supervisor.run(lambda: print(_where(options), file=sys.stderr, flush=True))


@app.command()
def up(
    repository: Repository = _DEFAULT.repository,
    host: Host = _DEFAULT.host,
    http_port: HttpPort = _DEFAULT.http_port,
    grpc_port: GrpcPort = _DEFAULT.grpc_port,
    metrics_port: MetricsPort = _DEFAULT.metrics_port,
    openai_port: OpenaiPort = _DEFAULT.openai_port,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Serve in the background; returns when the server is ready."""
    options = ServerOptions(
        repository=repository, host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port,
        openai_port=openai_port,
    )  # fmt: skip
    with _errors_told():
        if (running := find_running(run_folder)) is not None:
            print(f"a server is running already (pid {running.pid}, {running.options.repository})")
            print(_where(running.options))
            return
        _check_repository(options)
        run_folder.mkdir(parents=True, exist_ok=True)
        find_binaries(run_folder)
        check_ports(options)
        started = time.monotonic()
        with Console(stderr=True).status("starting the Triton server ..."):
            start_in_background(options, run_folder)
        print(f"ready after {time.monotonic() - started:.1f} s")
        print(_where(options))


@app.command()
def down(run_folder: RunFolder = RUN_FOLDER) -> None:
    """Stop the server that runs in the background."""
    running = find_running(run_folder)
    if running is None:
        print("no server is running")
        return
    stop_running(running, run_folder)
    print(f"stopped (pid {running.pid})")


@app.command()
def status(
    run_folder: RunFolder = RUN_FOLDER, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False
) -> None:
    """What is running, where, and how it is doing; exit code 3 if nothing is."""
    running = find_running(run_folder)
    if running is None:
        print(json.dumps({"running": False}) if as_json else "no server is running; start one with `make up`")
        raise typer.Exit(NOT_RUNNING)
    health = look(running)
    if as_json:
        print(json.dumps({
            "running": True, "ready": health.ready, "pid": running.pid, "repository": str(running.options.repository),
            "ports": running.options.ports, "memory_bytes": health.memory_bytes, "requests": health.requests,
        }))  # fmt: skip
        return
    print(f"{'ready' if health.ready else 'not ready'}: {running.options.repository} (pid {running.pid})")
    requests = ", ".join(f"{n} {k}" for k, n in health.requests.items()) or "its metrics do not answer"
    print(f"memory {health.memory_bytes / 1e6:,.0f} MB; requests: {requests}")
    print(_where(running.options))


@app.command()
def logs(
    run_folder: RunFolder = RUN_FOLDER,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    lines: Annotated[int, typer.Option(help="How many of the last lines.", min=1)] = 100,
) -> None:
    """Print the server's log."""
    log = log_file(run_folder)
    with _errors_told():
        if not log.exists():
            raise ServerError(f"no log at {log}", "start a server with `make up`")
        with log.open(encoding="utf-8", errors="replace") as file:
            print("".join(deque(file, maxlen=lines)), end="", flush=True)
            while follow:
                print(file.readline() or _pause(), end="", flush=True)


def _pause() -> str:
    time.sleep(0.2)
    return ""


def _check_repository(options: ServerOptions) -> None:
    folder = options.repository / "generate" / "1"
    if not options.repository.is_dir():
        raise ServerError(f"no model repository at {options.repository}", "build one with `make engine`")
    check_runnable(EngineManifest.load(folder), folder)


def _where(options: ServerOptions) -> str:
    message = (
        '{"messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"What is the capital of France?\\"}]", "max_tokens": 64}'
    )
    return "\n".join(
        [
            f"  HTTP     {options.http_url}/v2/models/triune/generate",
            f"  gRPC     {options.grpc_url}",
            f"  metrics  {options.metrics_url}",
            *([f"  OpenAI   {options.openai_url}/v1  (chat page: {options.openai_url}/)"] if options.openai_port else []),
            "try it:",
            f"  curl -s {options.http_url}/v2/models/triune/generate -d '{message}'",
            f"  .venv/bin/python -m triune_client chat --url {options.http_url}",
        ]
    )


@contextmanager
def _errors_told() -> Iterator[None]:
    """As every command, and with files that cannot be used counted as the user's."""
    with errors_told():
        try:
            yield
        except OSError as error:
            if error.filename is None:
                raise  # not about a file of the user's: our own bug
            raise ServerError(
                f"{error.filename} cannot be used: {error.strerror}", "make it usable, or choose another --run-folder"
            ) from error
