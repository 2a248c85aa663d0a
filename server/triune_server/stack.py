"""The stack of containers that a run folder has started: found, looked at, stopped. What it is made of stands in `containers`.

Its state file says what was chosen; docker says what runs. A stack that compose alone started has no state: the run folder that
is the default takes it for its own, by the compose file of this checkout.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import docker_cli
from .docker_cli import Container
from .draining import under_way
from .errors import ServerError
from .gateway import is_gateway_ready
from .launcher import is_ready
from .options import ServerOptions
from .state import RUN_FOLDER
from .telling import where

COMPOSE_FILE = Path(__file__).parents[2] / "docker" / "compose.yaml"
SERVICES = ("server", "gateway")
REPOSITORY = "/models"  # where containers have it
_NAME = "stack.json"
_PATHS = ("repository", "api_key_file", "access_log", "responses_file", "tls_cert", "tls_key")
_STOPPING_S = 30.0  # besides what requests get


@dataclass(frozen=True, kw_only=True)
class State:
    """What a stack was started with.

    Attributes:
        own: variables that compose.yaml alone has, as the environment said them.
        environment: all that compose was given.
        engine: the hash of the engine's inputs.
    """

    project: str
    model: str
    options: ServerOptions
    own: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""

    def save(self, folder: Path) -> None:
        """Write the state file of `folder`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f"{_NAME}.new"
        beside.write_text(json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n", "utf-8")
        beside.replace(folder / _NAME)


class Published(ServerOptions):
    """Where a stack listens: its gateways have the certificate, as they have the keys, and its server has not."""

    @property
    def kserve_tls(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The containers of a stack that are there, and its state if it has one."""

    project: str
    containers: tuple[Container, ...]
    state: State | None

    def of(self, service: str) -> list[Container]:
        """The containers of a service that run."""
        return [one for one in self.containers if one.service == service and one.state == "running"]

    @property
    def options(self) -> ServerOptions:
        """Where it listens, as docker says.

        Raises:
            ServerError: its server does not run.
        """
        server = next(iter(self.of("server")), None)
        if server is None or not {8000, 8001, 8002} <= server.ports.keys():
            raise ServerError(f"the server of the stack {self.project} does not run", "look why: `make status`, `make logs`")
        openai = [one.ports[8003] for one in self.of("gateway") if 8003 in one.ports]
        openai_host, openai_port = min(openai, key=lambda place: place[1], default=(None, 0))
        chosen = (self.state.options.tls_cert, self.state.options.tls_key) if self.state is not None else (None, None)
        return Published(
            repository=Path(server.mounts.get(REPOSITORY, REPOSITORY)), host=server.ports[8000][0],
            grpc_host=server.ports[8001][0], metrics_host=server.ports[8002][0], openai_host=openai_host,
            http_port=server.ports[8000][1], grpc_port=server.ports[8001][1], metrics_port=server.ports[8002][1],
            openai_port=openai_port, tls_cert=chosen[0], tls_key=chosen[1],
        )  # fmt: skip

    def told(self, as_json: bool) -> str:
        """How it is doing."""
        listed = {one.name: ", ".join(filter(None, (one.state, one.health))) for one in self.containers}
        known: dict[str, Any] = {"running": False, "ready": False, "where": "docker", "project": self.project}
        lines = [f"containers of the compose project {self.project}"]
        if self.of("server"):
            options = self.options
            known |= {
                "running": True, "ready": is_ready(options) and (not options.openai_port or is_gateway_ready(options)),
                "repository": str(options.repository), "ports": options.ports, "requests": under_way(options),
            }  # fmt: skip
            lines = [f"{'ready' if known['ready'] else 'not ready'}: {options.repository} (in {lines[0]})"]
            lines += [f"requests: {', '.join(f'{n} {k}' for k, n in known['requests'].items()) or 'its metrics do not answer'}"]
            lines += [where(options)]
        if as_json:
            return json.dumps(known | {"containers": listed})
        lines[1:1] = [f"  {name}  {how}" for name, how in listed.items()]
        return "\n".join(lines)

    def logs(self, lines: int, follow: bool) -> int:
        """Print what its containers said; docker's exit code."""
        sys.stdout.flush()
        command = ["docker", "compose", f"--project-name={self.project}", "logs", f"--tail={lines}", *["--follow"] * follow]
        return subprocess.run(command, check=False).returncode

    def stop(self, folder: Path, *, now: bool = False) -> None:
        """Stop and remove it; requests under way get their time.

        Raises:
            ServerError: docker cannot.
        """
        drain_s = self.state.options.drain_s if self.state else 86400  # what its containers were made with counts
        at_once = ["--timeout=1"] if now else []
        # Gateways first, then the server: each gets its time.
        done = docker_cli.ask(
            "compose", f"--project-name={self.project}", "down", *at_once, timeout_s=2 * (drain_s + _STOPPING_S)
        )
        if done.returncode:
            raise ServerError(f"the stack could not be stopped: {docker_cli.last_line(done.stderr)}", "`docker ps` shows it")
        forget(folder)


def project_name() -> str:
    """What compose calls a stack that is started now."""
    return os.environ.get("COMPOSE_PROJECT_NAME") or "triune"


def find_state(folder: Path) -> State | None:
    """What the state file of `folder` says, if there is one."""
    try:
        raw = json.loads((folder / _NAME).read_text("utf-8"))
        paths = {name: Path(said) for name in _PATHS if (said := raw["options"].get(name)) is not None}
        lists = {name: tuple(raw["options"][name]) for name in ("cors", "also")}
        return State(**raw | {"options": ServerOptions(**raw["options"] | paths | lists)})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no file, or one that nobody of ours wrote


def forget(folder: Path) -> None:
    """Remove the state file of `folder`, if there is one."""
    (folder / _NAME).unlink(missing_ok=True)


def find_stack(folder: Path) -> Stack | None:
    """The stack that `folder` has started, or compose alone from this checkout, if its containers are there.

    Raises:
        ServerError: there was one, and docker does not say what has become of it.
    """
    state = find_state(folder)
    project = state.project if state else project_name()
    if state is None and (folder.absolute() != RUN_FOLDER.absolute() or not docker_cli.is_installed()):
        return None
    try:
        found = docker_cli.containers(project)
    except ServerError:
        if state is None:
            return None  # a docker that does not work has started nothing
        raise
    ours = tuple(one for one in found if one.service in SERVICES and str(COMPOSE_FILE) in one.files)
    return Stack(project=project, containers=ours, state=state) if ours else None
