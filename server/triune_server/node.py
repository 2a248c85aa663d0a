"""`triune node`: a further machine of an engine that several serve."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from triune_runtime.manifest import EngineManifest
from triune_runtime.targets import check_runnable, find_target

from . import logs
from .cli import files_told
from .errors import ServerError
from .given import given
from .settings import Setting, Values, with_settings
from .view import ENGINE_FOLDER


def commands(app: typer.Typer, settings: Mapping[str, Setting], config: object, repository: Callable[[Values], Path]) -> None:
    """Add it to `app`.

    Args:
        settings: that say which model.
        repository: where that of the model lies.
    """

    def node(
        values: Values,
        master: Annotated[str, typer.Option(help="The first machine, which serves.", metavar="ADDRESS[:PORT]")],
        rank: Annotated[int, typer.Option(help="Of this one: 1 and up.", min=1)],
    ) -> None:
        """Do a further machine's part of an engine that several serve, until ctrl-C; the same engine is built on each.

        Told to end by SIGTERM, it first waits for what the first machine serves to end.
        """
        logs.configure("text")
        stop, leave = threading.Event(), threading.Event()

        def end(number: int, frame: object) -> None:
            leave.set()
            if number == signal.SIGINT:
                stop.set()
            else:  # as where all machines are told so: the first one has requests under way
                later = threading.Timer(values["drain_s"], stop.set)
                later.daemon = True
                later.start()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        with files_told():
            said: Path | None = values.one_of("model", "repository")["repository"]
            folder = (said or repository(values)) / ENGINE_FOLDER
            if not folder.is_dir():
                raise ServerError(f"no engine is built in {folder}", "build it here, too, as on the first machine: make engine")
            manifest = EngineManifest.load(folder)
            if (join := find_target(manifest.target).join) is None:
                raise ServerError(f"engines of target {manifest.target} run on one machine", "name another TARGET")
            check_runnable(manifest, folder)
            join(folder, master, rank, stop, leave, given(os.environ, keys=False))

    app.command("node")(with_settings(node, settings, config))
