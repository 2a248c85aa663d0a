"""`up` in containers: what was asked for becomes what docker/compose.yaml takes, or is refused by name; then compose starts it.

Before any work it is checked what can be; a stack that does not start is taken down again, and what its container said is told.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from triune_runtime.interruption import raise_on_interrupt
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import TARGETS, find_target

from . import __version__, docker_cli, telling
from .container_checks import (
    OF_GPUS,
    check_carried,
    check_certificate,
    check_keys,
    check_limits,
    check_published,
    check_repository,
    check_responses,
    gateways_of,
)  # fmt: skip
from .errors import ServerError
from .options import ServerOptions
from .settings import Values
from .stack import COMPOSE_FILE, SERVICES, Published, Stack, State, find_stack, forget, project_name
from .starting import Builder
from .state import find_running
from .state import forget as forget_native
from .view import ENGINE_FOLDER

HERE, DOCKER = "here", "docker"
OWN = (  # what compose.yaml takes of the environment beside the settings
    "TRIUNE_IMAGE", "TRIUNE_GATEWAYS", "TRIUNE_OPENAI_PORTS", "TRIUNE_MEMORY", "TRIUNE_CPUS", "TRIUNE_SHM",
    "TRIUNE_GATEWAY_MEMORY", "TRIUNE_GRACE", "TRIUNE_GPUS",
)  # fmt: skip
_AS_THEY_ARE = (
    "name", "http_port", "grpc_port", "metrics_port", "drain_s", "grpc_connection_s", "log_format", "log_text", "otlp",
    "triton_spans", "prefix_caching", "front", "fair_share", "max_memory",
)  # fmt: skip
_FILES = ("api_key_file", "responses_file", "tls_cert", "tls_key")
_HOSTS = ("host", "http_host", "grpc_host", "metrics_host", "openai_host")
_GRACE_S, _MORE_S = 60, 15  # of a service to stop: the least, and what it gets beside its requests
_LAST_LINES = 8
_KILLED = (137, -9)


def check_where(where: str) -> None:
    """
    Raises:
        ServerError: it is no place to serve.
    """
    if where not in (HERE, DOCKER):
        raise ServerError(f"WHERE is {where!r}; it can be {HERE} or {DOCKER}", f"say WHERE={DOCKER}, or leave it out")


@dataclass(frozen=True, kw_only=True)
class ContainerStart:
    """One start of a stack; attributes as of `starting.Start`, but `build` and `switch` are always said."""

    each: tuple[Values, ...]
    builder: Builder | None
    build: bool
    switch: bool

    def up(self) -> str:
        """Serve in containers, unless that is what runs; what to tell of it.

        Raises:
            ServerError: whatever stands in the way.
        """
        values, folder = self.each[0], Path(self.each[0]["run_folder"])
        if len(self.each) > 1:
            raise ServerError(
                f"containers serve one model, and MODELS asks for {len(self.each)}",
                "say MODEL, or serve them without containers: leave WHERE out",
            )
        if not COMPOSE_FILE.exists():
            raise ServerError("containers are started from a checkout, which has docker/compose.yaml", "run `make up` in one")
        daemon = docker_cli.check_docker()
        if (native := find_running(folder)) is not None:
            raise ServerError(
                f"{native.model} is being served without containers (pid {native.pid})", "stop it first: `make down`"
            )
        stack = self._stack(folder)
        options, own = self._options(stack), self._own(stack)
        check_carried(options, os.environ)
        hosts: dict[str, Any] = {name: _address(host) for name in _HOSTS if (host := getattr(options, name)) is not None}
        options = dataclasses.replace(options, **hosts)
        gateways = gateways_of(options, own)
        build = self.build and self.builder is not None and values["repository"] is None
        target = values["target"] if build else EngineManifest.load(_engine(options)).target
        if target in TARGETS and not find_target(target).contained and not own.get("TRIUNE_IMAGE"):
            raise ServerError(
                f"the images have nothing that runs engines of target {target}",
                "serve it here: leave WHERE out; or name an image that has: TRIUNE_IMAGE",
            )
        of_gpus = target in OF_GPUS
        image = own.get("TRIUNE_IMAGE") or f"{'triune' if of_gpus else 'triune-cpu'}:{__version__}"
        environment = _environment(options, own, image, gateways)
        differing = self._differing(stack, environment)
        if stack is not None and differing and not self.switch:
            raise _runs_otherwise(stack, environment, differing)
        make = "make image" if of_gpus else "make image-cpu"
        docker_cli.check_image(image, f"docker pull {image}" if own.get("TRIUNE_IMAGE") else f"build it first: `{make}`")
        held = [place[1] for one in stack.containers for place in one.ports.values()] if stack else []
        check_published(options, gateways, held)
        if options.api_key_file is not None:
            check_keys(options.api_key_file, daemon.same_users)
        check_certificate(options, daemon.same_users)
        if options.responses_file is not None:
            check_responses(options.responses_file, len(gateways), daemon.same_users)
        check_limits(own, None if build else _engine(options))
        if build and self.builder is not None:
            self.builder.build(values)
            check_limits(own, _engine(options))
        check_repository(options.repository, daemon.same_users)
        manifest = EngineManifest.load(_engine(options))
        state = State(
            project=stack.project if stack else project_name(), model=manifest.model, options=options, own=own,
            environment=environment, engine=manifest.inputs_hash,
        )  # fmt: skip
        same = stack is not None and not differing
        anew = same and stack is not None and stack.state is not None and stack.state.engine != state.engine
        started = time.monotonic()
        self._start(state, gateways, of_gpus, folder, anew=anew, keep=same and not anew)
        proved = self.builder.proved(options.repository) if self.builder is not None else ""
        each = [Published(**vars(options) | {"openai_port": port}) for port in gateways or (0,)]
        more = [f"  OpenAI   {one.openai_url}/v1" for one in each[1:]]
        lines = [f"ready after {time.monotonic() - started:.1f} s", telling.served(manifest, proved), telling.where(each[0])]
        return "\n".join([*lines, *more])

    def _stack(self, folder: Path) -> Stack | None:
        """What runs of this folder; what runs of another by the same name is not touched."""
        stack = find_stack(folder)
        project = stack.project if stack else project_name()
        others = [] if stack else [one for one in docker_cli.containers(project) if one.service in SERVICES]
        if others:
            raise ServerError(
                f"the compose project {project} runs already, from {others[0].files[0]}",
                f"stop it there, or choose another name: COMPOSE_PROJECT_NAME={project}-2 make up WHERE=docker ...",
            )
        return stack

    def _options(self, stack: Stack | None) -> ServerOptions:
        """What is not asked for stays as it is with the stack that runs. Paths are absolute."""
        values = self.each[0]
        stays = vars(stack.state.options) if stack is not None and stack.state is not None else {}
        asked = {name: value for name, value in values.asked().items() if name in {f.name for f in _fields()}}
        repository: Path | None = values["repository"]
        if repository is None:
            if self.builder is None:
                raise ServerError("no model repository is named", "name it: --repository FOLDER")
            repository = self.builder.repository(values)
        elif not repository.is_dir():
            raise ServerError(f"no model repository at {repository}", "build one with `make engine`")
        options = values.server_options(**stays | asked | {"repository": repository, "also": ()})
        files = {name: path and path.absolute() for name in _FILES if (path := getattr(options, name))}
        return dataclasses.replace(options, repository=options.repository.resolve(), **files)

    def _own(self, stack: Stack | None) -> dict[str, str]:
        stays = dict(stack.state.own) if stack is not None and stack.state is not None else {}
        return stays | {name: said for name in OWN if (said := os.environ.get(name))}

    def _differing(self, stack: Stack | None, environment: Mapping[str, str]) -> list[str]:
        if stack is None:
            return []
        has = stack.state.environment if stack.state is not None else {}
        return [name for name, value in environment.items() if has.get(name, "") != value]

    def _start(self, state: State, gateways: Sequence[int], of_gpus: bool, folder: Path, *, anew: bool, keep: bool) -> None:
        """Have compose start it.

        Args:
            anew: whether containers that run are replaced though they were made of the same.
            keep: whether the stack stays if this fails: it served the same before.
        """
        files = [COMPOSE_FILE, *([COMPOSE_FILE.with_name("compose.gpu.yaml")] if of_gpus else [])]
        compose = ["docker", "compose", f"--project-name={state.project}", *(f"--file={file}" for file in files)]
        environment = {**os.environ, **state.environment}
        up = ["up", "--no-build", "--pull=never", "--wait", *["--force-recreate"] * anew]
        began = time.time()
        forget_native(folder)  # of one that is gone
        state.save(folder)
        raise_on_interrupt()
        try:
            with Console(stderr=True).status("starting the containers ..."):
                done = subprocess.run(
                    [*compose, *up, *([] if gateways else ["--scale=gateway=0"])],
                    env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                )  # fmt: skip
            if done.returncode == 0:
                return
            raise _failure(state, done.stderr, began, folder)
        except BaseException as error:
            if not keep:
                with Console(stderr=True).status("removing the containers ..."):
                    subprocess.run([*compose, "down"], env=environment, capture_output=True, check=False)
                forget(folder)
            if isinstance(error, KeyboardInterrupt):
                raise SystemExit(130) from None
            raise


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(ServerOptions)


def _engine(options: ServerOptions) -> Path:
    folder = options.repository / ENGINE_FOLDER
    if not folder.is_dir():
        raise ServerError(f"there is no model repository in {options.repository}", "build one: `make engine`, or `make up`")
    return folder


def _address(host: str) -> str:
    """The number of an address: docker takes no name."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host  # said when its ports are tried


def _environment(options: ServerOptions, own: Mapping[str, str], image: str, gateways: Sequence[int]) -> dict[str, str]:
    """What compose is given; an empty text is as if nothing were said."""
    said = {f"TRIUNE_{name.upper()}": getattr(options, name) for name in _AS_THEY_ARE}
    responses = options.responses_file
    said |= {
        "TRIUNE_REPOSITORY": options.repository,
        **{f"TRIUNE_{name.upper()}": getattr(options, name) for name in _HOSTS},
        "TRIUNE_TLS_CERT": options.tls_cert,
        "TRIUNE_TLS_KEY": options.tls_key,
        "TRIUNE_OPENAI_PORT": options.openai_port or None,
        "TRIUNE_API_KEY_FILE": options.api_key_file,
        "TRIUNE_CORS": shlex.join(options.cors),
        "TRIUNE_ACCESS_LOG": options.access_log,
        "TRIUNE_RESPONSES_FOLDER": responses and responses.parent,
        "TRIUNE_RESPONSES_NAME": responses and responses.name,
        **{name: own.get(name) for name in OWN},
        "TRIUNE_IMAGE": image,
        "TRIUNE_GATEWAYS": len(gateways),
        "TRIUNE_GRACE": own.get("TRIUNE_GRACE") or f"{max(_GRACE_S, options.drain_s + _MORE_S)}s",
    }
    return {name: "" if value is None else str(value) for name, value in said.items()}


def _runs_otherwise(stack: Stack, environment: Mapping[str, str], differing: Sequence[str]) -> ServerError:
    hint = "to switch to it: `make up WHERE=docker SWITCH=1 ...`, with `triune up` --switch; or stop it first: `make down`"
    if stack.state is None:
        return ServerError(f"the compose project {stack.project} runs already, and was not started by `make up`", hint)
    asked = " ".join(f"{name.removeprefix('TRIUNE_')}={shlex.quote(environment[name])}" for name in differing)
    return ServerError(f"{stack.state.model} is being served in containers; asked for: {asked}", hint)


def _failure(state: State, said: str, began: float, folder: Path) -> ServerError:
    """Why compose could not start it: which container ended, how, and its last words."""
    ends = docker_cli.ends(state.project, began - 1, time.time() + 1)
    there = docker_cli.containers(state.project)
    words = {one.name: docker_cli.logs(one.name) for one in there}
    log = folder / "stack.log"
    log.write_text("".join(f"==> {name} <==\n{said}\n" for name, said in words.items()), "utf-8")
    for one in there:
        ended, code = one.name in ends, ends.get(one.name, one.exit_code)
        if not (ended or one.health == "unhealthy" or one.state in ("restarting", "exited", "dead")):
            continue
        lines = [line.rstrip() for line in words[one.name].splitlines() if line.strip()]
        text = "".join(f"\n  {line[:300]}" for line in lines[-_LAST_LINES:]) or "\n  it said nothing"
        if code is None or code in _KILLED or one.out_of_memory or "ended with code -9" in text:
            variable = "TRIUNE_MEMORY" if one.service == "server" else "TRIUNE_GATEWAY_MEMORY"
            limit = state.environment.get(variable) or {"TRIUNE_MEMORY": "16g", "TRIUNE_GATEWAY_MEMORY": "1g"}[variable]
            what = f"{one.name} was killed (137), as whoever needs more memory than its limit is, {limit}"
            return ServerError(f"{what}:{text}", f"give it more: {variable}=SIZE; the whole log is {log}")
        what = (
            f"{one.name} ended with code {code}" if ended or one.state != "running" else f"{one.name} does not become healthy"
        )
        return ServerError(f"{what}:{text}", f"the whole log is {log}")
    problem = docker_cli.last_line(said) or "docker compose says nothing"
    if "could not select device driver" in problem:
        return ServerError(f"docker cannot give containers a GPU: {problem}", "install the NVIDIA Container Toolkit")
    return ServerError(f"docker could not start the containers: {problem}", f"what they said is in {log}")
