"""A container as the chart runs it: read-only, an ordinary user, no capabilities."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containers.engine import run
from support.real_server import free_port

STRICT = (
    "--read-only", "--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never",
    "--tmpfs=/run/triune", "--tmpfs=/tmp", "--shm-size=256m",
)  # fmt: skip


@contextmanager
def container(
    docker: dict[str, str], image: str, *arguments: str, repository: Path, command: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[int, int]]]:
    """A running one and its ports outside, by those inside; removed in the end."""
    ports = {inside: free_port() for inside in (8000, 8001, 8002, 8003)}
    published = [f"--publish=127.0.0.1:{outside}:{inside}" for inside, outside in ports.items()]
    mounted = f"--volume={repository}:/models:ro"
    name = run("docker", "run", "-d", *STRICT, *published, mounted, *arguments, image, *command, environment=docker).strip()
    try:
        yield name, ports
    finally:
        run("docker", "rm", "-f", name, environment=docker)


def wait_healthy(docker: dict[str, str], name: str, timeout_s: float = 120) -> None:
    """Wait until the image's own HEALTHCHECK says so."""
    deadline = time.monotonic() + timeout_s
    while (state := run("docker", "inspect", "-f", "{{.State.Status}} {{.State.Health.Status}}", name, environment=docker)) != (
        "running healthy\n"
    ):
        log = f"{state}\n{run('docker', 'logs', name, environment=docker)}"
        assert state.startswith("running") and time.monotonic() < deadline, log
        time.sleep(0.5)
