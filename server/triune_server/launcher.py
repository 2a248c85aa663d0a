"""Command line and environment of the embedded tritonserver, and one running instance of it."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

import httpx
import psutil

from .binaries import Binaries
from .errors import ServerError
from .options import ServerOptions
from .surroundings import NOTHING, Surroundings

STUB = "triton_python_backend_stub"
SHARED_MEMORY = Path("/dev/shm")
_CAUSE = re.compile(r"\|.*\| UNAVAILABLE: (?:Internal: )?(.*?) *\|$")  # a row of the server's table of models
_TRACE_HEADERS = "(?i:traceparent|tracestate)"
_CLIENT_HEADER = "x-triune-client"  # whose request it is, as whoever lets clients in says
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def command(binaries: Binaries, options: ServerOptions, prefix: str) -> list[str]:
    """The server's command line; `prefix` names its shared memory, so that servers do not meet."""
    return [
        str(binaries.server),
        f"--model-repository={options.repository.absolute()}",
        "--model-control-mode=poll",  # models come and go with their folders; nobody can load one by a request
        "--repository-poll-secs=1",
        "--strict-readiness=false",  # else nothing is ready while one model comes; the first ones are there before it listens
        f"--backend-directory={binaries.backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        # Requests and chunks are small; the default of 64 MB for each model would be most of the server's memory.
        "--backend-config=python,shm-default-byte-size=4194304",
        "--disable-auto-complete-config",
        f"--http-address={options.host}",
        f"--http-port={options.http_port}",
        "--http-thread-count=4",
        f"--grpc-address={options.host}",
        f"--grpc-port={options.grpc_port}",
        # What is under way on an old connection ends there; Triton's grace for it has no end.
        *([f"--grpc-max-connection-age={1000 * options.grpc_connection_s}"] if options.grpc_connection_s else []),
        f"--metrics-address={options.host}",
        f"--metrics-port={options.metrics_port}",
        f"--allow-gpu-metrics={'true' if binaries.gpu_metrics else 'false'}",
        "--pinned-memory-pool-byte-size=0",
        "--metrics-interval-ms=1000",
        "--exit-timeout-secs=5",
        *_forwarded(options),
        *(f"--trace-config={one}" for one in _traces(options)),
    ]


def _forwarded(options: ServerOptions) -> list[str]:
    """The request headers that Triton makes parameters of."""
    known = {_TRACE_HEADERS: bool(options.otlp), _CLIENT_HEADER: options.fair_share != "off"}
    found = [name for name, wanted in known.items() if wanted]
    return [f"--{one}-header-forward-pattern=^({'|'.join(found)})$" for one in ("http", "grpc") if found]


def _traces(options: ServerOptions) -> list[str]:
    """Triton's own spans, in the trace of the caller."""
    if not options.otlp or options.triton_spans != "on":
        return []
    to = f"opentelemetry,url={options.otlp.rstrip('/')}/v1/traces"
    return ["mode=opentelemetry", to, "opentelemetry,resource=service.name=triune-triton", "rate=1", "level=TIMESTAMPS"]


def environment(binaries: Binaries, options: ServerOptions, around: Surroundings = NOTHING) -> dict[str, str]:
    """The server's environment. Its Python stubs ignore PYTHONPATH and find their environment through PATH."""
    libraries = [*map(str, binaries.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PATH": f"{binaries.python}:{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",  # the repository stays as it was built
        "OMP_NUM_THREADS": "1",
        "TRIUNE_PREFIX_CACHING": options.prefix_caching,  # the models read it, and what follows
        "TRIUNE_FAIR_SHARE": options.fair_share,
        "TRIUNE_MAX_MEMORY": str(options.max_memory),
        **around.environment(options),
    }


def check_ports(options: ServerOptions, held: Collection[int] = ()) -> None:
    """Make sure that every port is free and used once.

    Args:
        held: by a server that will be stopped first.

    Raises:
        ServerError: names the port, its variable and, where it can be seen, the process that holds it.
    """
    variables: dict[int, str] = {}
    for variable, port in options.ports.items():
        if (other := variables.setdefault(port, variable)) != variable:
            raise ServerError(f"{other} and {variable} are both {port}", f"choose another port, {_choice(variable, port)}")
        if port in held:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except socket.gaierror as error:
                raise ServerError(
                    f"{options.host} is no IPv4 address of this machine: {error.strerror}",
                    "choose another address, with `triune` --host, with make HOST=127.0.0.1, or 0.0.0.0 for all",
                ) from None
            except OSError as error:
                raise ServerError(
                    f"port {port} on {options.host} cannot be used{_holder(port)}: {error.strerror}",
                    f"stop that program, or choose another port, {_choice(variable, port)}",
                ) from None


def _choice(variable: str, port: int) -> str:
    """Another port for it, as make and as `triune` take it."""
    another = port + 1000 if port + 1000 < 1 << 16 else port - 1000
    return f"with `triune` --{variable.lower().replace('_', '-')}, with make {variable}={another}"


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f"; process {connection.pid} ({psutil.Process(connection.pid).name()}) has it"
    except psutil.Error:
        return ""
    return ""


def end_with_parent() -> None:
    """In the new process: have the kernel stop it when its parent is killed, so that no server outlives its supervisor."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """A running tritonserver and its stubs."""

    def __init__(
        self,
        binaries: Binaries,
        options: ServerOptions,
        log: Path,
        watched: Callable[[str], bool] = lambda model: True,
        around: Surroundings = NOTHING,
    ) -> None:
        """Start it; its output goes to the end of `log`.

        Args:
            watched: whether a model, by its folder's name, is to be there: the end of its process is a problem then.
        """
        self.options = options
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._prefix = f"triune{os.getpid()}_"
        with log.open("ab") as out:
            self.process = psutil.Popen(
                command(binaries, options, self._prefix),
                env=environment(binaries, options, around),
                pass_fds=around.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # ctrl-C stops the supervisor, which then stops the server in order
                preexec_fn=end_with_parent,
            )
        self._stubs: dict[psutil.Process, str] = {}  # and the model of each
        self._watched = watched

    def wait_ready(self, timeout_s: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until every model is served, or until `given_up`.

        Raises:
            ServerError: the server ended or was not ready in time; with the log's telling lines.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if given_up():
                return
            if self.process.poll() is not None:
                raise ServerError(
                    f"tritonserver ended with code {self.process.returncode} while starting:\n{self.reasons()}",
                    f"the whole log is {self.log}",
                )
            if is_ready(self.options):
                self.look_again()
                return
            time.sleep(0.1)
        raise ServerError(
            f"tritonserver was not ready after {timeout_s:.0f} s:\n{self.reasons()}", f"the whole log is {self.log}"
        )

    def look_again(self) -> None:
        """Watch the processes of the models that are served now."""
        self._stubs = {stub: _model_of(stub) for stub in self._find_stubs()}

    def problem(self) -> str | None:
        """What is wrong with the server, or None: it has ended, or one of its stubs has."""
        if self.process.poll() is not None:
            return f"tritonserver ended with code {self.process.returncode}"
        dead = [stub.pid for stub, model in self._stubs.items() if _has_ended(stub) and self._watched(model)]
        return f"the Python process of a model died (pid {', '.join(map(str, dead))})" if dead else None

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the server and everything it started."""
        family = [self.process, *self._find_stubs(), *self._stubs]
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except psutil.TimeoutExpired:
                self.process.kill()
        for process in family:
            if process.is_running():
                try:
                    process.wait(1.0) if process is not self.process else process.wait()
                except psutil.TimeoutExpired:
                    process.kill()
        self._free_shared_memory()

    def kill(self) -> None:
        """End the server and its stubs at once: their clients see their connections close."""
        for process in (self.process, *self._find_stubs(), *self._stubs):
            if process.is_running():
                process.kill()
        self.process.wait()
        self._free_shared_memory()

    def reasons(self) -> str:
        """The log's lines since the start that say what went wrong."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").splitlines()
        causes = dict.fromkeys(found[1] for line in lines if (found := _CAUSE.match(line)))  # several models, one cause
        telling = [line for line in lines if line.startswith(("E", "error:")) or "Error:" in line]
        known_noise = ("CudaDriverHelper", "NVML", "unable to create stream")
        telling = [line for line in telling if not any(noise in line for noise in known_noise)]
        return "\n".join(f"  {line[:300]}" for line in (list(causes) or telling or lines)[-4:])

    def _free_shared_memory(self) -> None:
        """Remove what the server shared with its stubs: one that was killed leaves it behind."""
        for region in SHARED_MEMORY.glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)

    def _find_stubs(self) -> list[psutil.Process]:
        try:
            return [p for p in self.process.children(recursive=True) if p.name().startswith(STUB[:15])]
        except psutil.NoSuchProcess:
            return []


def _has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _model_of(stub: psutil.Process) -> str:
    """The folder's name of the model that a stub runs; empty if that cannot be seen."""
    try:
        return next((Path(one).parents[1].name for one in stub.cmdline() if one.endswith("/1/model.py")), "")
    except psutil.Error:
        return ""


def is_ready(options: ServerOptions) -> bool:
    """Whether every model answers."""
    try:
        # trust_env: a proxy of the environment is for the network, not for this machine
        return httpx.get(f"{options.http_url}/v2/health/ready", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
