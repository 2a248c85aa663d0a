"""A real Triton server for the end-to-end tests: `triune serve` in a process of its own, on free ports."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from support.certificates import Pair
from triune_server.asking import ask
from triune_server.gateway import is_gateway_ready
from triune_server.options import ServerOptions

ROOT = Path(__file__).parents[2]
REPOSITORY = Path(os.environ.get("TRIUNE_E2E_REPOSITORY", ROOT / "build/smollm2-135m/cpu/repository"))


def _ports_of_this_worker() -> range:
    """Below those that the system hands out, and no other worker's."""
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{more}") for more in ("", "_COUNT"))
    each = (32_000 - 10_000) // int(workers or 1)
    start = 10_000 + each * int((worker or "gw0").removeprefix("gw"))
    return range(start, start + each)


# One after the other, so that two that are asked for before either is bound are never the same; from anywhere, since ports
# of a run that has just ended may still be held.
_NEXT = count(secrets.randbelow(32_000))


def free_port(in_a_row: int = 1) -> int:
    """A port that nobody else takes before it is used.

    Args:
        in_a_row: how many ports must be free, that one and those after it.
    """
    ports = _ports_of_this_worker()
    while True:
        some = [ports[next(_NEXT) % len(ports)] for _ in range(in_a_row)]
        if some != list(range(some[0], some[0] + in_a_row)):
            continue
        with ExitStack() as probes, suppress(OSError):
            for port in some:
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return some[0]


@dataclass
class RealServer:
    """`triune serve` in a process of its own."""

    options: ServerOptions
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return self.options.http_url

    def generate(self, model: str = "triune", **body: object) -> httpx.Response:
        return ask(f"{self.url}/v2/models/{model}/generate", method="POST", json=body, timeout_s=60)

    def metric(self, family: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`; 0 where there are none."""
        text = ask(self.options.metrics_url, timeout_s=10).text
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples if s.name == family]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def wait_idle(self, timeout_s: float = 20.0) -> None:
        """Wait until the server's own metrics say that nothing runs or waits and no slot is held."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            used = self.metric("nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="used")
            if not used + self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting"):
                return
            time.sleep(0.1)
        raise AssertionError(f"the server still holds slots or requests after {timeout_s} s")

    def stubs(self, model: str) -> list[psutil.Process]:
        """The Python processes of `model`."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in family if "triton_python" in p.name() and f"/{model}/" in " ".join(p.cmdline())]


def start(
    folder: Path, repository: Path = REPOSITORY, *more: str, tls: Pair | None = None, timeout_s: float = 60.0
) -> RealServer:
    """Start a server and wait until it is ready."""
    options = ServerOptions(
        repository=repository, http_port=free_port(), grpc_port=free_port(), metrics_port=free_port(), openai_port=free_port(),
        tls_cert=tls and tls.certificate, tls_key=tls and tls.key,
    )  # fmt: skip
    ports = [f"--{name.lower().replace('_', '-')}={port}" for name, port in options.ports.items()]
    files = [f"--tls-cert={tls.certificate}", f"--tls-key={tls.key}"] if tls is not None else []
    served = [f"--repository={repository}", *ports, *files, *more]
    log = folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "triune_server", "serve", f"--run-folder={folder}", *served],
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    server = RealServer(options, process, log)
    wait_ready(server, timeout_s)
    wait_gateway(server)
    wait_watched(server)
    return server


def wait_ready(server: RealServer, timeout_s: float = 60.0) -> float:
    """Wait until the server answers; seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < timeout_s:
        assert server.process.poll() is None, f"the server ended:\n{server.log.read_text()[-3000:]}"
        try:
            if ask(f"{server.url}/v2/health/ready", timeout_s=2).status_code == 200:
                return time.monotonic() - began
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the server was not ready after {timeout_s} s:\n{server.log.read_text()[-3000:]}")


def wait_gateway(server: RealServer, timeout_s: float = 20.0) -> None:
    """Wait until the OpenAI-compatible API answers too."""
    end = time.monotonic() + timeout_s
    while not is_gateway_ready(server.options):
        assert time.monotonic() < end, f"the gateway was not ready after {timeout_s} s:\n{server.log.read_text()[-3000:]}"
        time.sleep(0.1)


def wait_watched(server: RealServer, timeout_s: float = 20.0) -> None:
    """Wait until the server has said itself that it is ready, so that what dies from here on is started again."""
    end = time.monotonic() + timeout_s
    while server.options.http_url not in server.log.read_text():
        assert time.monotonic() < end, f"the server does not say that it is ready:\n{server.log.read_text()[-3000:]}"
        time.sleep(0.05)


def stop(server: RealServer) -> None:
    """Stop the server, at once, and make sure that nothing of it is left."""
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    server.process.send_signal(signal.SIGINT)
    server.process.wait(30)
    _, left = psutil.wait_procs(family, timeout=5)
    for process in left:
        process.kill()
    assert not left, f"the server left processes behind: {left}"
