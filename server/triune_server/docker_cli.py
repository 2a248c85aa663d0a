"""The program docker: whether it can start a stack, what containers there are, what ended them. Knows no setting."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ServerError

_LEAST, _LEAST_COMPOSE = (25,), (2, 24)  # `start_interval` of a health check; `--wait`, and defaults within defaults
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_FILES = "com.docker.compose.project.config_files"
_ANSWER_S = 30.0
_INSTALL = "install Docker Engine 25 or later with its compose plugin, see https://docs.docker.com/engine/install/"


@dataclass(frozen=True, kw_only=True)
class Container:
    """One of a compose project."""

    name: str
    service: str
    files: tuple[str, ...]  # of compose, that it was made from
    state: str  # created, running, restarting, exited, ...
    health: str  # starting, healthy, unhealthy; empty: nobody looks
    exit_code: int
    out_of_memory: bool
    ports: Mapping[int, tuple[str, int]]  # inside -> address and port outside
    mounts: Mapping[str, str]  # inside -> outside


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """The engine that docker talks to."""

    same_users: bool  # a number of a user inside is the same user outside


def is_installed() -> bool:
    """Whether there is a docker at all."""
    return shutil.which("docker") is not None


def ask(*arguments: str, timeout_s: float = _ANSWER_S) -> subprocess.CompletedProcess[str]:
    """Run docker; what it said.

    Raises:
        ServerError: it is not there, or says nothing for too long.
    """
    command = ["docker", *arguments]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise ServerError("there is no docker on PATH", f"{_INSTALL}; or serve without containers: leave WHERE out") from None
    except subprocess.TimeoutExpired:
        said = f"docker {arguments[0]} did not answer within {timeout_s:.0f} s"
        raise ServerError(said, "look what its daemon does: systemctl status docker") from None


def check_docker() -> Daemon:
    """Make sure that docker, its compose plugin and its daemon are there and new enough.

    Raises:
        ServerError: one is not.
    """
    plugin = ask("compose", "version", "--short")
    if plugin.returncode or (have := _version(plugin.stdout)) is None:
        raise ServerError("docker has no compose plugin", "install docker-compose-plugin, or as Debian calls it docker-compose")
    if have < _LEAST_COMPOSE:
        said = f"docker's compose plugin is {plugin.stdout.strip()}; {_dotted(_LEAST_COMPOSE)} or later is needed"
        raise ServerError(said, "install a newer docker-compose-plugin")
    answer = ask("info", "--format", "{{json .}}")
    try:
        info: dict[str, Any] = json.loads(answer.stdout or "{}")
    except ValueError:
        info = {}
    if answer.returncode or info.get("ServerErrors") or not info.get("ServerVersion"):
        problem = last_line(answer.stderr) or " ".join(info.get("ServerErrors") or ["it says nothing"])
        raise ServerError(
            f"docker's daemon does not answer: {problem}",
            "start it (systemctl start docker), or let this user talk to it (usermod -aG docker USER, then log in again)",
        )
    version = str(info["ServerVersion"])
    if (_version(version) or _LEAST) < _LEAST:
        raise ServerError(f"docker's daemon is {version}; {_dotted(_LEAST)} or later is needed", _INSTALL)
    mapped = any(word in option for option in info.get("SecurityOptions") or () for word in ("rootless", "userns"))
    return Daemon(same_users=not mapped and "Desktop" not in str(info.get("OperatingSystem")))


def check_image(image: str, remedy: str) -> None:
    """Make sure that an image is there: none is ever pulled.

    Raises:
        ServerError: it is not.
    """
    if ask("image", "inspect", "--format", "{{.Id}}", image).returncode:
        raise ServerError(f"there is no image {image} on this machine", remedy)


def containers(project: str) -> tuple[Container, ...]:
    """All of a project, running or not; the server's first.

    Raises:
        ServerError: docker's daemon does not answer.
    """
    listed = ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_PROJECT}={project}")
    if listed.returncode:
        raise ServerError(f"docker cannot be asked what runs: {last_line(listed.stderr)}", "start it: systemctl start docker")
    if not listed.stdout.split():
        return ()
    seen = ask("inspect", "--type=container", *listed.stdout.split())  # one that is gone meanwhile is left out
    return tuple(sorted(map(_container, json.loads(seen.stdout or "[]")), key=lambda one: (one.service != "server", one.name)))


def ends(project: str, since: float, until: float) -> dict[str, int | None]:
    """The containers of a project that ended between two times, in seconds of the epoch -> code; None: out of memory."""
    found: dict[str, int | None] = {}
    told = ask(
        "events", f"--since={since:.0f}", f"--until={until:.0f}", f"--filter=label={_PROJECT}={project}",
        "--filter=event=die", "--filter=event=oom", "--format={{json .}}",
    )  # fmt: skip
    for line in told.stdout.splitlines():
        event = json.loads(line)
        about = event["Actor"]["Attributes"]
        if event.get("Action", event.get("status")) == "oom":
            found[about["name"]] = None
        else:
            found.setdefault(about["name"], int(about.get("exitCode", 0)))
    return found


def logs(name: str, lines: int = 1000) -> str:
    """What a container said last."""
    said = ask("logs", f"--tail={lines}", name)
    return said.stdout + said.stderr


def last_line(text: str) -> str:
    """What was said last."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _container(raw: Mapping[str, Any]) -> Container:
    labels, state = raw["Config"]["Labels"], raw["State"]
    published: Mapping[str, Any] = raw["NetworkSettings"].get("Ports") or {}
    return Container(
        name=raw["Name"].lstrip("/"),
        service=labels.get(_SERVICE, ""),
        files=tuple(labels.get(_FILES, "").split(",")),
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=state["ExitCode"],
        out_of_memory=bool(state.get("OOMKilled")),
        ports={
            int(inside.partition("/")[0]): (places[0]["HostIp"], int(places[0]["HostPort"]))
            for inside, places in published.items()
            if places
        },
        mounts={mount["Destination"]: mount.get("Source", "") for mount in raw.get("Mounts", ())},
    )


def _version(text: str) -> tuple[int, ...] | None:
    found = re.search(r"(\d+)\.(\d+)", text)
    return found and (int(found[1]), int(found[2]))


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
