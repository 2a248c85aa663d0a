"""Keeps a server running: starts it, watches it, starts it again when it or one of its Python processes dies."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from triune_runtime.manifest import EngineManifest

from .binaries import Binaries
from .companions import Companion, stop_all
from .draining import Drain, wait_drained
from .draining_file import forget_room, profile_files, room_files
from .errors import ServerError
from .front import Front
from .gateway import Gateway
from .inside import Inside, opened
from .launcher import Server, check_ports, is_live
from .leftovers import mark_of
from .lock import RunLock, lock_for_life
from .mounting import mounted
from .options import ServerOptions
from .restarts import Restarts
from .stalled import Stalled
from .state import RunningServer, forget, log_file
from .stopping import StopRequest
from .surroundings import Surroundings
from .threads import start_seconds
from .view import ENGINE_FOLDER, View, name_for
from .watchdog import SILENCE_S, Probe, Watchdog

LOG = logging.getLogger(__name__)
_CRASHES = 2  # of Triton that a first start survives


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
        ready_timeout_s: float | None = None,
        watch_s: float = 0.5,
        silence_s: float = SILENCE_S,
        lock: RunLock | None = None,
    ) -> None:
        """
        Args:
            folder: where its state and log lie; it is there.
            settings, engine: see `RunningServer`.
            ready_timeout_s: how long it may take to start; by default what its engines may.
            silence_s: how long a process may give no sign of life.
            lock: of the folder, if it is held already; it is released at the end.
        """
        self._binaries, self._options, self._folder = binaries, options, folder
        self._view = View(folder)
        self._settings, self._engine = dict(settings or {}), engine
        self._ready_timeout_s, self._watch_s = ready_timeout_s or start_seconds(*options.repositories), watch_s
        self._stopping, self._hurrying = StopRequest(), StopRequest()
        self._drain, self._stalled = Drain(folder), Stalled(folder)
        log = os.dup(1) if options.log_format == "json" else None
        self._watchdog = Watchdog(silence_s)
        self._around = Surroundings(
            draining=self._drain.file, stalled=self._stalled.file, room=room_files(folder), profile=profile_files(folder),
            log=log, mark=mark_of(folder), pulse=self._watchdog.descriptor,
        )  # fmt: skip
        self._lock = lock
        self._state: RunningServer | None = None
        self._restarts = Restarts()
        self._crashes = 0  # before it was ready for the first time
        self._served = False  # whether it has ever been ready
        self._beside: list[Companion] = []  # what outlives a restart of the server

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
        """Serve until stopped. What dies is started again, later and later, for ever.

        Args:
            on_ready: called each time the server has become ready.

        Raises:
            ServerError: the run folder has a server, a port is in use, or the server cannot start for the first time.
        """
        lock = self._lock or lock_for_life(self._folder)
        try:
            check_ports(self._options)
            self._state = RunningServer(
                pid=os.getpid(), created=psutil.Process().create_time(), options=self._options, settings=self._settings,
                engine=self._engine,
            )  # fmt: skip
            self._state.save(self._folder)
            self._serve(on_ready)
        finally:
            with suppress(OSError):
                forget(self._folder)
            lock.release()

    def _serve(self, on_ready: Callable[[], None]) -> None:
        try:
            self._drain.clear()
            self._stalled.clear()
            forget_room(self._folder)
            self._view.begin(self._repositories())
            served, mark = dataclasses.replace(self._options, repository=self._view.models), self._around.mark
            with opened(mark) as inside, mounted(self._binaries, served, mark) as places:
                behind = inside if self._options.front == "on" else None
                self._start_beside(behind)
                while not self._stopping.is_set():
                    self._serve_once(places, behind, on_ready)
        finally:
            stop_all(self._beside)
            with suppress(OSError):  # the folder is gone, for one
                self._view.end()
                self._drain.clear()
                forget_room(self._folder)

    def _repositories(self) -> dict[str, Path]:
        """What is served from the start, by name."""
        first = self._options.repository
        if not (first / ENGINE_FOLDER).is_dir():
            return {}
        name = self._options.name or name_for(EngineManifest.load(first / ENGINE_FOLDER).model)
        also = dict(one.partition("=")[::2] for one in self._options.also)
        return {name: first, **{other: Path(path) for other, path in also.items()}}

    def _start_beside(self, inside: Inside | None) -> None:
        """The front, unless clients talk to Triton's HTTP directly, and the OpenAI-compatible API, where it is asked for."""
        log = log_file(self._folder)

        def companion(make: Callable[[], Front | Gateway]) -> None:
            self._beside.append(Companion(make, self._watchdog, self._note))
            self._beside[-1].start()

        if inside is not None:
            companion(lambda: Front(self._options, inside, log, self._around))
        if self._options.openai_port:
            companion(lambda: Gateway(self._options, log, self._view.list, self._around, inside))

    def _serve_once(self, places: tuple[Binaries, ServerOptions], inside: Inside | None, on_ready: Callable[[], None]) -> None:
        try:
            server = Server(*places, log_file(self._folder), self._view.is_served, self._around, inside)
        except OSError as error:  # no descriptor, process or memory is left
            if not self._served:
                raise
            self._start_later(f"no process can be started: {error.strerror}", 0.0)
            return
        try:
            try:
                server.wait_ready(self._ready_timeout_s, self._waits_no_more, self._watchdog.problem)
                for one in () if self._served else self._beside:
                    one.wait_ready(self._ready_timeout_s, self._stopping.is_set)
            except ServerError as error:
                if not self._served and not self._try_again(server):
                    raise
                server.kill()
                self._watchdog.forget(*server.watched)
                self._start_later(str(error.args[0]).partition(":\n")[0], 0.0)
                return
            if self._stopping.is_set():
                self._finish()
                return
            since = time.monotonic()
            self._served = True
            self._note(waiting=False)
            on_ready()
            if (problem := self._watch(server, inside)) is None:
                self._finish()
                return
            server.kill()
            self._watchdog.forget(*server.watched)
            self._start_later(problem, time.monotonic() - since)
        finally:
            server.stop()

    def _watch(self, server: Server, inside: Inside | None) -> str | None:
        """Look after it until it has to be started again, and why; None: until it has to stop."""
        served = self._view.served()
        probe = Probe(server.process.pid, partial(is_live, server.options, inside), self._watchdog)
        try:
            while not self._stopping.wait(self._watch_s):
                if (now := self._view.served()) != served:
                    served, before = now, server.watched
                    server.look_again()
                    self._watchdog.forget(*(before.keys() - server.watched.keys()))
                if (problem := server.problem() or self._watchdog.problem(server.watched)) is not None:
                    return problem
                self._stalled.tell(self._watchdog.stalled(server.watched))
                self._look_beside()
            return None
        finally:
            probe.end()
            self._stalled.clear()

    def _try_again(self, server: Server) -> bool:
        """Whether a server that has never been ready is started once more. What it was given does not get better by that, but
        Triton itself, on a machine that has no time for it, sometimes loses a message to a model's process, and aborts."""
        self._crashes += 1
        return server.crashed and self._crashes <= _CRASHES

    def _waits_no_more(self) -> bool:
        """Whether to stop while the server starts. Those beside it are looked after meanwhile, once all have been ready."""
        if self._served:
            self._look_beside()
        return self._stopping.is_set()

    def _look_beside(self) -> None:
        for one in self._beside:
            one.look()

    def _start_later(self, problem: str, lived_s: float) -> None:
        """Wait before the server is started again."""
        delay_s = self._restarts.died(problem, lived_s)
        self._note(problem, delay_s, waiting=delay_s > 0)
        end = time.monotonic() + delay_s
        while (left := end - time.monotonic()) > 0 and not self._stopping.wait(min(left, self._watch_s)):
            self._look_beside()

    def _note(self, problem: str = "", delay_s: float = 0.0, *, waiting: bool = False) -> None:
        """Say what has died, here and to `status`."""
        if problem:
            LOG.warning("%s; starting again %s", problem, f"in {delay_s:.0f} s" if delay_s else "now")
        if self._state is None:
            return
        total = sum(one.total for one in (self._restarts, *(one.restarts for one in self._beside)))
        state = dataclasses.replace(self._state, restarts=total, reason=problem or self._state.reason, waiting=waiting)
        if state != self._state:
            self._state = state
            with suppress(OSError):  # a full disk
                state.save(self._folder)

    def _finish(self) -> None:
        """Refuse what comes, let what is under way end, and have those beside the server end while it does."""
        grace_s = self._options.drain_s
        self._drain.begin(0 if self._hurrying.is_set() else grace_s)
        if self._served and not self._hurrying.is_set():
            LOG.info("stopping: requests under way have %d s to end, new ones are refused", grace_s)
            if not wait_drained(self._options, grace_s, self._hurrying.wait):
                LOG.warning("stopping: not all requests have ended by themselves")
        for one in self._beside:
            one.tell_to_end()


def stop_on_signals(supervisor: Supervisor) -> None:
    """Let ctrl-C end `supervisor` in order, and a polite kill when its requests have ended."""

    def handle(signal_number: int, frame: FrameType | None) -> None:
        supervisor.drain() if signal_number == signal.SIGTERM else supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
