"""Command line and environment of the embedded tritonserver, and one running instance of it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from .asking import ask
from .binaries import Binaries
from .errors import ServerError
from .given import given
from .inside import Inside, listening
from .leftovers import free_shared_memory, name_prefix, shared_memory, wait_gone
from .lifeline import Child
from .options import ServerOptions
from .stubs import Stubs
from .surroundings import NOTHING, Surroundings
from .telling import log_lines, log_size
from .threads import START_S, start_seconds, threads

_CAUSE = re.compile(r"\|.*\| UNAVAILABLE: (?:Internal: )?(.*?) *\|$")  # a row of the server's table of models
_TRACE_HEADERS = "(?i:traceparent|tracestate)"
_CLIENT_HEADER = "x-triune-client"  # whose request it is, as whoever lets clients in says
_NUMBERS = itertools.count(1)  # of the servers of this process
_STUBS_END_S = 1.0  # for stubs to end after the server
_STOP_S = 8.0  # for it to end in order: its grace for requests, and its models' ends
_LOOK_S = 0.5  # between looks at stubs that start


def command(binaries: Binaries, options: ServerOptions, prefix: str, inside: Inside | None) -> list[str]:
    """The server's command line; `prefix` names its shared memory, so that servers do not meet.

    Args:
        inside: where it listens for the front; None: clients talk to it directly.
    """
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
        f"--backend-config=python,thread-pool-size={threads(options.repository)}",
        *_patience(options),
        "--disable-auto-complete-config",
        *listening(options, inside),
        "--http-thread-count=4",
        # What is under way on an old connection ends there; Triton's grace for it has no end.
        *([f"--grpc-max-connection-age={1000 * options.grpc_connection_s}"] if options.grpc_connection_s else []),
        f"--allow-gpu-metrics={'true' if binaries.gpu_metrics else 'false'}",
        "--pinned-memory-pool-byte-size=0",
        "--metrics-interval-ms=1000",
        "--exit-timeout-secs=5",  # less than `_STOP_S`
        *_forwarded(options),
        *(f"--trace-config={one}" for one in _traces(options)),
    ]


def _patience(options: ServerOptions) -> list[str]:
    """How long Triton waits for a model's process, where its engine takes longer than most."""
    seconds = start_seconds(options.repository)
    return [f"--backend-config=python,stub-timeout-seconds={seconds:.0f}"] if seconds > START_S else []


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
    return given(os.environ, keys=False) | {
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "PATH": f"{binaries.python}:{os.environ.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",  # the repository stays as it was built
        "OMP_NUM_THREADS": "1",
        "TRIUNE_PREFIX_CACHING": options.prefix_caching,  # the models read it, and what follows
        "TRIUNE_FAIR_SHARE": options.fair_share,
        "TRIUNE_MAX_MEMORY": str(options.max_memory),
        "TRIUNE_THREADS": str(threads(options.repository)),
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
        name = variable.removesuffix("_PORT").lower()
        host, said_by = options.address(name), options.address_variable(name)
        if (other := variables.setdefault(port, variable)) != variable:
            raise ServerError(f"{other} and {variable} are both {port}", f"choose another port, {_choice(variable, port)}")
        if port in held:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except socket.gaierror as error:
                option = f"--{said_by.lower().replace('_', '-')}"
                raise ServerError(
                    f"{host} is no IPv4 address of this machine: {error.strerror}",
                    f"choose another address, with `triune` {option}, with make {said_by}=127.0.0.1, or 0.0.0.0 for all",
                ) from None
            except OSError as error:
                raise ServerError(
                    f"port {port} on {host} cannot be used{_holder(port)}: {error.strerror}",
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


class Server:
    """A running tritonserver and its stubs."""

    def __init__(
        self,
        binaries: Binaries,
        options: ServerOptions,
        log: Path,
        watched: Callable[[str], bool] = lambda model: True,
        around: Surroundings = NOTHING,
        inside: Inside | None = None,
    ) -> None:
        """Start it; its output goes to the end of `log`.

        Args:
            watched: see `Stubs`.
            inside: see `command`.
        """
        self.options = options
        self._inside = inside
        if inside is not None:
            inside.clear()
        self.log = log
        self._log_start = log_size(log)
        self._prefix = f"{name_prefix(around.mark)}{next(_NUMBERS)}_"
        self._child = Child(
            command(binaries, options, self._prefix, inside), env=environment(binaries, options, around), log=log,
            mark=around.mark, descriptors=around.descriptors,
        )  # fmt: skip
        self.process = self._child.process
        self._stubs = Stubs(self.process, watched)

    def wait_ready(
        self,
        timeout_s: float,
        given_up: Callable[[], bool] = lambda: False,
        hangs: Callable[[Mapping[int, str]], str | None] = lambda watched: None,
    ) -> None:
        """Wait until every model is served, or until `given_up`.

        Args:
            hangs: which of `watched` does, and why that can be said.

        Raises:
            ServerError: it or a stub of it ended or hangs, or it was not ready in time; with the log's telling lines.
        """
        deadline, look_at = time.monotonic() + timeout_s, 0.0
        while (now := time.monotonic()) < deadline:
            if given_up():
                return
            if self.process.poll() is not None:
                raise ServerError(
                    f"tritonserver ended with code {self.process.returncode} while starting:\n{self.reasons()}",
                    f"the whole log is {self.log}",
                )
            if is_ready(self.options, self._inside):
                self.look_again()
                return
            if now >= look_at:
                look_at = now + _LOOK_S
                if (problem := self._stubs.lost() or hangs(self.watched)) is not None:
                    raise ServerError(f"{problem} while starting:\n{self.reasons()}", f"the whole log is {self.log}")
            time.sleep(0.1)
        raise ServerError(
            f"tritonserver was not ready after {timeout_s:.0f} s:\n{self.reasons()}", f"the whole log is {self.log}"
        )

    def look_again(self) -> None:
        """Watch the processes of the models that are served now, and close what they share to other users."""
        for region in shared_memory(self._prefix):
            with suppress(OSError):
                region.chmod(0o600)  # its maker sets the mode, whatever the umask
        self._stubs.look()

    def problem(self) -> str | None:
        """What is wrong with the server, or None: it has ended, or one of its stubs has."""
        if self.process.poll() is not None:
            return f"tritonserver ended with code {self.process.returncode}"
        return self._stubs.problem()

    @property
    def crashed(self) -> bool:
        """Whether a signal has ended it: Triton says with an exit code what is wrong with what it was given."""
        return (self.process.poll() or 0) < 0

    @property
    def watched(self) -> dict[int, str]:
        """Its processes that must get on, by their ids, and what each is."""
        return {self.process.pid: "tritonserver", **self._stubs.watched}

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """Stop the server and everything it started; in order, if that takes no longer."""
        if self.process.poll() is None:
            self._child.send(signal.SIGTERM)
            if self._child.wait(timeout_s):
                wait_gone(self._child.family(), _STUBS_END_S)
        self.kill()

    def kill(self) -> None:
        """End the server and its stubs at once: their clients see their connections close."""
        self._child.kill()
        free_shared_memory(self._prefix)

    def reasons(self) -> str:
        """The log's lines since the start that say what went wrong."""
        lines = log_lines(self.log, self._log_start)
        causes = dict.fromkeys(found[1] for line in lines if (found := _CAUSE.match(line)))  # several models, one cause
        telling = [line for line in lines if line.startswith(("E", "error:")) or "Error:" in line]
        known_noise = ("CudaDriverHelper", "NVML", "unable to create stream")
        telling = [line for line in telling if not any(noise in line for noise in known_noise)]
        return "\n".join(f"  {line[:300]}" for line in (list(causes) or telling or lines)[-4:])


def is_ready(options: ServerOptions, inside: Inside | None = None) -> bool:
    """Whether every model answers.

    Args:
        inside: Triton itself is asked there; None: whoever listens at the HTTP port is.
    """
    return _says(options, inside, "ready", 2.0)


def is_live(options: ServerOptions, inside: Inside | None = None) -> bool:
    """Whether the server itself answers, whatever it can do; see `is_ready`."""
    return _says(options, inside, "live", 5.0)


def _says(options: ServerOptions, inside: Inside | None, what: str, timeout_s: float) -> bool:
    url, socket = (options.http_url, None) if inside is None else ("http://localhost", inside.http)
    try:
        return ask(f"{url}/v2/health/{what}", timeout_s=timeout_s, socket=socket).status_code == 200
    except (httpx.HTTPError, OSError):
        return False
