"""From what is asked for to a server that runs: what stands in the way is said before anything is built."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from triune_runtime.command_line import image
from triune_runtime.errors import TriuneError
from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import check_runnable

from . import telling
from .background import serve_command, start_in_background, stop_running
from .binaries import find_binaries
from .errors import ServerError
from .exposure import check_exposed
from .extras import check_server_packages
from .gateway import check_key_file
from .launcher import check_ports
from .lock import tidy
from .options import ServerOptions
from .settings import Setting, Values
from .shared_memory import check_shared_memory
from .state import RunningServer, find_running
from .switching import built_otherwise, check_same, plain
from .tls import check_tls
from .view import ENGINE_FOLDER, name_for


class Builder(Protocol):
    """What a server's commands ask of the builder."""

    @property
    def settings(self) -> Mapping[str, Setting]: ...
    def repository(self, values: Values) -> Path: ...
    def is_current(self, values: Values) -> bool: ...
    def build(self, values: Values) -> Path: ...
    def proved(self, repository: Path) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Start:
    """One start: what is asked for, and by what.

    Attributes:
        each: what is asked for of each model that is to be served; all but what names and builds it is the same.
        builder: None: only repositories that are there can be served.
        build: whether to build first.
        switch: whether to stop a server that runs.
    """

    each: tuple[Values, ...]
    builder: Builder | None
    build: bool = False
    switch: bool = False

    def up(self) -> str:
        """Serve in the background, unless that is what runs; what to tell of it.

        Raises:
            ServerError: whatever stands in the way.
        """
        running = find_running(self._folder)
        if running is not None and not self.switch:
            check_same(running, self.values, self._repository())
            return self._already(running)
        self._tidy(running)
        options = self.prepare(running)
        if running is not None:
            stop_running(running, self._folder)
        started = time.monotonic()
        with Console(stderr=True).status("starting the Triton server ..."):
            start_in_background(options, self._folder, self._settings())
        return f"ready after {time.monotonic() - started:.1f} s\n{self._told(options)}"

    def foreground(self) -> list[str]:
        """Prepare everything for a server in the foreground; its command line.

        Raises:
            ServerError: whatever stands in the way.
        """
        running = find_running(self._folder)
        if running is not None and not self.switch:
            raise ServerError(
                f"{running.model} is being served already (pid {running.pid}, {running.options.http_url})",
                "stop it first: `make down`; or have `make serve SWITCH=1` do so, with `triune serve` --switch",
            )
        self._tidy(running)
        options = self.prepare(running)
        if running is not None:
            stop_running(running, self._folder)
        for repository in (options.repository, *self._others()):
            print(self._engine(repository), file=sys.stderr, flush=True)
        return serve_command(options, self._folder, self._settings())

    def _tidy(self, running: RunningServer | None) -> None:
        if running is None and (ended := tidy(self._folder)):
            telling.tell(f"ended {ended} processes of a server that was killed")

    @property
    def values(self) -> Values:
        """Of the first model, and of the server."""
        return self.each[0]

    @property
    def _folder(self) -> Path:
        folder: Path = self.values["run_folder"]
        return folder

    def _repository(self) -> Path:
        """Of what is asked for, built or not."""
        repository: Path | None = self.values["repository"]
        if repository is not None:
            return repository
        if self.builder is None:
            raise ServerError("no model repository is named", "name it: --repository FOLDER")
        return self.builder.repository(self.values)

    def prepare(self, running: RunningServer | None = None) -> ServerOptions:
        """Check what can be checked, build, check what was built.

        Args:
            running: the server that will be stopped first.

        Raises:
            ServerError: whatever stands in the way.
        """
        options = self._options(running)
        build = self.build and self.builder is not None and self.values["repository"] is None
        check_server_packages(gateway=bool(options.openai_port) or options.front == "on", traced=options.otlp is not None)
        check_exposed(options)
        for note in check_tls(options):
            telling.tell(note)
        if options.api_key_file is not None:
            check_key_file(options.api_key_file)
        if build:
            self._check_names()
        else:
            self._check_engine(options)
        self._folder.mkdir(parents=True, exist_ok=True)
        find_binaries(self._folder)
        check_shared_memory()
        check_ports(options, running.options.ports.values() if running else ())
        if build and self.builder is not None:
            for values in self.each:
                self.builder.build(values)
            self._check_engine(options)
        return dataclasses.replace(options, also=self._also())

    def _check_engine(self, options: ServerOptions) -> None:
        for repository in (options.repository, *self._others()):
            if not repository.is_dir():
                raise ServerError(f"no model repository at {repository}", self._way_to_build())
            if not (repository / ENGINE_FOLDER).is_dir():
                raise ServerError(f"there is no model repository in {repository}", self._way_to_build())
            check_runnable(EngineManifest.load(repository / ENGINE_FOLDER), repository / ENGINE_FOLDER)

    def _check_names(self) -> None:
        """Two that are called the same, as far as that is known before they are built."""
        said = [values["name"] or str(values["model"]) for values in self.each]
        if twice := [name for name in said if said.count(name) > 1]:
            raise _two_called(twice[0])

    def _others(self) -> list[Path]:
        """The repositories of all models but the first."""
        return [] if self.builder is None else [self.builder.repository(values) for values in self.each[1:]]

    def _also(self) -> tuple[str, ...]:
        """The others as `ServerOptions` have them, with their names."""
        if self.builder is None:
            also: tuple[str, ...] = self.values["also"]
            return also
        names = [self.values["name"] or name_for(EngineManifest.load(self._repository() / ENGINE_FOLDER).model)]
        also = ()
        for values, repository in zip(self.each[1:], self._others(), strict=True):
            name = values["name"] or name_for(EngineManifest.load(repository / ENGINE_FOLDER).model)
            if name in names:
                raise _two_called(name)
            names.append(name)
            also += (f"{name}={repository}",)
        return also

    def _options(self, running: RunningServer | None) -> ServerOptions:
        """What is not asked for stays as it is with the server that is replaced, its keys and ports above all."""
        stays = {} if running is None else vars(running.options)
        asked = self.values.asked(stays)
        return self.values.server_options(**stays | asked | {"repository": self._repository(), "also": ()})

    def _settings(self) -> dict[str, Any]:
        if self.builder is None or self.values["repository"] is not None:
            return {}
        return plain(self.values, (*self.builder.settings, "models"))

    def _already(self, running: RunningServer) -> str:
        lines = [f"a server is running already (pid {running.pid}, {running.options.repository})"]
        if (old := self._older(running)) is not None:
            lines.append(f"{old}: `make up SWITCH=1` builds it and restarts the server, with `triune up` --build --switch")
        return "\n".join([*lines, self._told(running.options)])

    def _older(self, running: RunningServer) -> str | None:
        """How the running engine differs from what a build would make now; None if it does not."""
        if self.builder is None or self.values["repository"] is not None or not running.settings:
            return None
        if changed := built_otherwise(running, self.values, self.builder.settings):
            return f"its engine was built with {changed}, other than it would be now"
        try:
            published = EngineManifest.load(running.options.repository / ENGINE_FOLDER).inputs_hash
            if published == running.engine and self.builder.is_current(self.values):
                return None
        except TriuneError:
            return None  # what cannot be built now is said by the build
        return "its engine is older than what would be built now"

    def _told(self, options: ServerOptions) -> str:
        try:
            engine = "\n".join(self._engine(repository) for repository in options.repositories)
        except TriuneError:  # of a server that runs: its repository was moved away since
            return telling.where(options)
        return f"{engine}\n{telling.where(options)}"

    def _engine(self, repository: Path) -> str:
        """What is in a repository, and what was proved of it."""
        proved = self.builder.proved(repository) if self.builder is not None else ""
        return telling.served(EngineManifest.load(repository / ENGINE_FOLDER), proved)

    def _way_to_build(self) -> str:
        if self.builder is None or self.values["repository"] is not None:
            if image():
                mount = f"docker run -v FOLDER:{self.values['repository']}:ro ... {image()}"
                return f"mount one there: {mount}; FOLDER is what a build makes, e.g. $PWD/build/MODEL/TARGET/repository"
            return "build one with `make engine`"
        model = self.values.settings["model"].said(self.values["model"])
        return f"build it first: `make up {model}`, with `triune up` --build"


def _two_called(name: str) -> ServerError:
    return ServerError(f"two models are called {name}", "give one another name: [[models]] with name = ... in triune.toml")
