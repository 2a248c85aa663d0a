"""The bounded front before Triton's KServe API as a process beside the server: started, watched, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from .errors import ServerError
from .given import given
from .inside import Inside
from .launcher import end_with_parent
from .options import ServerOptions
from .surroundings import NOTHING, Surroundings

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
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self.process = psutil.Popen(
                front_command(options, inside),
                env=given(os.environ, keys=True) | {"PYTHONUNBUFFERED": "1", **around.environment(options)},
                pass_fds=around.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

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

    def stop(self, timeout_s: float = 6.0) -> None:
        """End it; answers under way get a moment to."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except psutil.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def reasons(self) -> str:
        """Its last words."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"  {line[:300]}" for line in lines[-4:])


def is_there(options: ServerOptions) -> bool:
    """Whether anything answers at the HTTP port."""
    try:
        httpx.get(f"{options.http_url}/v2/health/live", timeout=2.0, trust_env=False)
    except httpx.HTTPError:
        return False
    return True
