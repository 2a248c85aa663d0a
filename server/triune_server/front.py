"""The bounded front before Triton's KServe API as a process beside the server: started, watched, stopped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from .errors import ServerError
from .given import given
from .inside import Inside
from .lifeline import Child
from .options import ServerOptions
from .surroundings import NOTHING, Surroundings
from .telling import log_lines, log_size

_DRAIN_S = 2  # for what it is still sending when the server behind has ended all


def front_command(options: ServerOptions, inside: Inside) -> list[str]:
    """Its command line. API keys come by a file or the environment, where other users cannot read them."""
    return [
        sys.executable, "-m", "triune_gateway.kserve", f"--host={options.host}",
        f"--http-port={options.http_port}", f"--http-upstream={inside.http}",
        f"--metrics-port={options.metrics_port}", f"--metrics-upstream={inside.metrics}", f"--drain-s={_DRAIN_S}",
        *([f"--grpc-port={options.grpc_port}", f"--grpc-upstream={inside.grpc}"] if options.keyed else []),
        *([f"--api-keys-file={options.api_key_file}"] if options.api_key_file else []),
        *(f"--allow-origin={page}" for page in options.cors),
        *([f"--access-log={log}"] if (log := _access_log(options)) else []),
    ]  # fmt: skip


def _access_log(options: ServerOptions) -> str | None:
    """A file of its own beside the gateway's: each sets its own aside when that has grown long."""
    if options.access_log is not None:
        return str(options.access_log.with_name(f"{options.access_log.stem}.kserve{options.access_log.suffix}"))
    return "-" if options.log_format == "json" else None


class Front:
    """A running front. It outlives restarts of Triton: its clients are told to try again meanwhile."""

    def __init__(self, options: ServerOptions, inside: Inside, log: Path, around: Surroundings = NOTHING) -> None:
        """Start it; its output goes to the end of `log`."""
        self._options = options
        self.log = log
        self._log_start = log_size(log)
        self._child = Child(
            front_command(options, inside),
            env=given(os.environ, keys=True) | {"PYTHONUNBUFFERED": "1", **around.environment(options)},
            log=log, mark=around.mark, descriptors=around.descriptors,
        )  # fmt: skip
        self.process = self._child.process

    def wait_ready(self, timeout_s: float, given_up: Callable[[], bool] = lambda: False) -> None:
        """Wait until it answers, whatever the server behind does, or until `given_up`.

        Raises:
            ServerError: it ended or was not there in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if given_up() or is_there(self._options):
                return
            if (problem := self.problem()) is not None:
                raise ServerError(f"{problem} while starting:\n{self.reasons()}", f"the whole log is {self.log}")
            time.sleep(0.05)
        raise ServerError(f"the HTTP front was not there after {timeout_s:.0f} s", f"the whole log is {self.log}")

    def problem(self) -> str | None:
        """What is wrong with it, or None: it has ended."""
        if self.process.poll() is None:
            return None
        return f"the HTTP front ended with code {self.process.returncode}"

    @property
    def watched(self) -> dict[int, str]:
        """See `Server.watched`."""
        return {self.process.pid: "the HTTP front"}

    def stop(self, timeout_s: float = 6.0) -> None:
        """End it; answers under way get a moment to."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(psutil.TimeoutExpired):
                self.process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()

    def reasons(self) -> str:
        """Its last words."""
        return "\n".join(f"  {line[:300]}" for line in log_lines(self.log, self._log_start)[-4:])


def is_there(options: ServerOptions) -> bool:
    """Whether anything answers at the HTTP port."""
    try:
        httpx.get(f"{options.http_url}/v2/health/live", timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
