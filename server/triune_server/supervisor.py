"""Keeps a server running: starts it, watches it, starts it again when it or one of its Python processes dies."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from triune_runtime.manifest import EngineManifest

from .binaries import Binaries
from .draining import Drain, wait_drained
from .errors import ServerError
from .front import Front
from .gateway import Gateway
from .inside import Inside, opened
from .launcher import Server, check_ports
from .mounting import mounted
from .options import ServerOptions
from .state import RunningServer, forget, log_file
from .stopping import StopRequest
from .surroundings import Surroundings
from .view import ENGINE_FOLDER, View, name_for

LOG = logging.getLogger(__name__)
_RESTARTS, _WINDOW_S = 3, 60.0  # more restarts than this in this time: it will not get better by itself


class Supervisor:
    """One server, kept alive until `stop`."""

    def __init__(
        self,
        binaries: Binaries,
        options: ServerOptions,
        folder: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        engine: str = "",
        ready_timeout_s: float = 120.0,
        watch_s: float = 0.5,
    ) -> None:
        """
        Args:
            folder: where its state and log lie.
            settings, engine: see `RunningServer`.
        """
        self._binaries, self._options, self._folder = binaries, options, folder
        self._view = View(folder)
        self._settings, self._engine = dict(settings or {}), engine
        self._ready_timeout_s, self._watch_s = ready_timeout_s, watch_s
        self._stopping, self._hurrying = StopRequest(), StopRequest()
        self._drain = Drain(folder)
        log = os.dup(sys.stdout.fileno()) if options.log_format == "json" else None
        self._around = Surroundings(draining=self._drain.file, log=log)
        self._restarted: list[float] = []
        self._served = False  # whether it has ever been ready
        self._gateway: Gateway | None = None  # of the OpenAI-compatible API, where it is asked for
        self._front: Front | None = None  # before Triton's HTTP, unless clients talk to that directly

    def stop(self) -> None:
        """Ask `run` to end at once; may be called from a signal handler."""
        self._hurrying.set()
        self._stopping.set()

    def drain(self) -> None:
        """Ask `run` to end when what is under way has ended; asked again, at once. May be called from a signal handler."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped.

        Args:
            on_ready: called each time the server has become ready.

        Raises:
            ServerError: a port is in use, the server cannot start for the first time, or it dies again and again.
        """
        check_ports(self._options)
        created = psutil.Process().create_time()
        RunningServer(
            pid=os.getpid(), created=created, options=self._options, settings=self._settings, engine=self._engine
        ).save(self._folder)
        try:
            self._drain.clear()
            self._view.begin(self._repositories())
            served = dataclasses.replace(self._options, repository=self._view.models)
            with opened() as inside, mounted(self._binaries, served) as places:
                behind = inside if self._options.front == "on" else None
                self._start_gateway(behind)
                self._start_front(behind)
                while not self._stopping.is_set():
                    self._serve_once(places, behind, on_ready)
        finally:
            if self._front is not None:
                self._front.stop()
            if self._gateway is not None:
                self._gateway.stop()
            self._view.end()
            self._drain.clear()
            forget(self._folder)

    def _repositories(self) -> dict[str, Path]:
        """What is served from the start, by name."""
        first = self._options.repository
        if not (first / ENGINE_FOLDER).is_dir():
            return {}
        name = self._options.name or name_for(EngineManifest.load(first / ENGINE_FOLDER).model)
        also = dict(one.partition("=")[::2] for one in self._options.also)
        return {name: first, **{other: Path(path) for other, path in also.items()}}

    def _start_gateway(self, inside: Inside | None) -> None:
        if self._options.openai_port:
            self._gateway = Gateway(self._options, log_file(self._folder), self._view.list, self._around, inside)

    def _start_front(self, inside: Inside | None) -> None:
        if inside is not None:
            self._front = Front(self._options, inside, log_file(self._folder), self._around)

    def _serve_once(self, places: tuple[Binaries, ServerOptions], inside: Inside | None, on_ready: Callable[[], None]) -> None:
        server = Server(*places, log_file(self._folder), self._view.is_served, self._around, inside)
        try:
            try:
                server.wait_ready(self._ready_timeout_s, given_up=self._stopping.is_set)
                if self._front is not None and not self._served:
                    self._front.wait_ready(self._ready_timeout_s, given_up=self._stopping.is_set)
                if self._gateway is not None and not self._served:
                    self._gateway.wait_ready(self._ready_timeout_s, given_up=self._stopping.is_set)
            except ServerError as error:
                if not self._served:  # what never worked is not made to work by trying again
                    raise
                self._count_restart(str(error.args[0]).partition(":\n")[0], server)  # its reasons are told there
                return
            if not self._stopping.is_set():
                self._served = True
                on_ready()
            served = self._view.served()
            while not self._stopping.wait(self._watch_s):
                if (now := self._view.served()) != served:
                    served = now
                    server.look_again()
                if (problem := server.problem()) is not None:
                    server.kill()
                    self._count_restart(problem, server)
                    return
                if self._gateway is not None and (problem := self._gateway.problem()) is not None:
                    self._count_restart(problem, self._gateway)
                    self._start_gateway(inside)
                if self._front is not None and (problem := self._front.problem()) is not None:
                    self._count_restart(problem, self._front)
                    self._start_front(inside)
            self._finish()
        finally:
            server.stop()

    def _finish(self) -> None:
        """Refuse what comes, and let what is under way end."""
        grace_s = self._options.drain_s
        self._drain.begin(0 if self._hurrying.is_set() else grace_s)
        if self._hurrying.is_set() or not self._served:
            return
        LOG.info("stopping: requests under way have %d s to end, new ones are refused", grace_s)
        if not wait_drained(self._options, grace_s, self._hurrying.wait):
            LOG.warning("stopping: not all requests have ended by themselves")

    def _count_restart(self, problem: str, server: Server | Gateway | Front) -> None:
        now = time.monotonic()
        self._restarted = [at for at in self._restarted if now - at < _WINDOW_S] + [now]
        if len(self._restarted) > _RESTARTS:
            raise ServerError(
                f"{problem}, for the {len(self._restarted)}th time in {_WINDOW_S:.0f} s:\n{server.reasons()}",
                f"the whole log is {server.log}",
            )
        LOG.warning("%s; starting %s again", problem, "the server" if isinstance(server, Server) else "it")


def stop_on_signals(supervisor: Supervisor) -> None:
    """Let ctrl-C end `supervisor` in order, and a polite kill when its requests have ended."""

    def handle(signal_number: int, frame: FrameType | None) -> None:
        supervisor.drain() if signal_number == signal.SIGTERM else supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
