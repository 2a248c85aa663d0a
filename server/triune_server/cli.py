"""Commands of a server: serve, up, down, status, logs. Parses, calls, prints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from triune_runtime.command_line import errors_told, in_place
from triune_runtime.manifest import EngineManifest

from . import logs as own_log
from .background import look, stop_running
from .binaries import find_binaries
from .configuration import configured
from .containers import DOCKER, HERE, ContainerStart, check_where
from .errors import ServerError
from .settings import MODELS, Setting, Values, server_settings, suggest, with_settings
from .several import add_model, remove_model
from .stack import find_stack, find_state
from .starting import Builder, Start
from .state import begin_log, find_running, log_file
from .supervisor import Supervisor, stop_on_signals
from .telling import where
from .view import ENGINE_FOLDER, View

NOT_RUNNING = 3  # exit code of `status`, as of service managers
SERVER = server_settings()

Switch = Annotated[bool, typer.Option("--switch", help="Replace a server that runs, when ready.")]
Where = Annotated[str, typer.Option("--where", help=f"{HERE}; {DOCKER}: in containers.", show_default=False)]
Build = Annotated[bool, typer.Option("--build", help="Build the model first, if need be.")]


def commands(app: typer.Typer, settings: Mapping[str, Setting], builder: Builder | None) -> None:
    """Add a server's commands to `app`.

    Args:
        settings: that can be said in triune.toml and by the environment; empty: nothing is read from there.
        builder: None: only repositories that are there can be served.
    """
    config = config_option(settings) if settings else None
    table = for_models(builder.settings) if builder else SERVER
    run_folder = {"run_folder": SERVER["run_folder"]}

    def serve(values: Values, switch: Switch = False, build: Build = False) -> None:
        """Serve in the foreground until ctrl-C; a server that dies is started again."""
        with files_told():
            _check_no_stack(values["run_folder"])
            command = Start(each=_each_model(values), builder=builder, build=build, switch=switch).foreground()
            sys.stdout.flush()
            os.execv(command[0], command)

    def supervise(
        values: Values, settings: Annotated[str, typer.Option(hidden=True, help="What else was chosen, as JSON.")] = "{}"
    ) -> None:
        """Serve in the foreground until ctrl-C; a server that dies is started again."""
        own_log.configure(values["log_format"])
        with files_told():
            options = Start(each=(values,), builder=None).prepare()
            folder = values["run_folder"]
            begin_log(folder)
            engine = EngineManifest.load(options.repository / ENGINE_FOLDER).inputs_hash
            supervisor = Supervisor(find_binaries(folder), options, folder, settings=json.loads(settings), engine=engine)
            stop_on_signals(supervisor)
            supervisor.run(lambda: print(where(options), file=sys.stderr, flush=True))

    def up(values: Values, switch: Switch = False, build: Build = False, where: Where = HERE) -> None:
        """Serve in the background; returns when the server is ready."""
        with files_told():
            check_where(where)
            each = _each_model(values)
            if where == DOCKER:
                print(ContainerStart(each=each, builder=builder, build=build, switch=switch).up())
                return
            _check_no_stack(values["run_folder"])
            print(Start(each=each, builder=builder, build=build, switch=switch).up())

    def add(values: Values, build: Build = False) -> None:
        """Serve one more model with the server that runs; nothing of the others is touched."""
        with files_told():
            print(add_model(_one_model(values), builder, build=build))

    def remove(
        values: Values, name: Annotated[str, typer.Argument(help="What clients call it.")]
    ) -> None:  # fmt: skip
        """Serve one model less, once what was asked of it is answered; nothing of the others is touched."""
        with files_told():
            print(remove_model(values["run_folder"], name))

    def down(
        values: Values, now: Annotated[bool, typer.Option("--now", help="Do not wait for requests under way.")] = False
    ) -> None:  # fmt: skip
        """Stop the server that runs in the background, when what it is asked is answered: at most --drain-s later."""
        folder = values["run_folder"]
        running = find_running(folder)
        if running is not None:
            stop_running(running, folder, now=now)
            print(f"stopped (pid {running.pid})")
        with files_told():
            stack = find_stack(folder)
            if stack is not None and (running is None or stack.state is not None):
                stack.stop(folder, now=now)
                print(f"stopped the containers of {stack.project}")
        if running is None and stack is None:
            print("no server is running")

    def status(
        values: Values,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
    ) -> None:  # fmt: skip
        """What is running, where, and how it is doing; exit code 3 if nothing is."""
        with files_told():
            _status(values["run_folder"], as_json)

    def logs(
        values: Values,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
        lines: Annotated[int, typer.Option(help="How many of the last lines.", min=1)] = 100,
    ) -> None:  # fmt: skip
        """Print the server's log."""
        with files_told():
            if find_running(values["run_folder"]) is None and (stack := find_stack(values["run_folder"])) is not None:
                raise typer.Exit(stack.logs(lines, follow))
            _logs(log_file(values["run_folder"]), follow, lines)

    app.command("serve")(with_settings(serve, table, config) if builder else with_settings(supervise, SERVER))
    app.command("up")(with_settings(up, table, config))
    one_more = {
        **(builder.settings if builder else {}),
        **{name: SERVER[name] for name in ("repository", "name", "run_folder")},
    }
    app.command("add")(with_settings(add, one_more, config))
    for command in (remove, down, status, logs):
        app.command(command.__name__)(with_settings(command, run_folder, config))


def config_option(settings: Mapping[str, Setting]) -> object:
    """The annotation of a command's parameter that has triune.toml and the environment say what options do not."""

    def configure(context: typer.Context, file: Path | None) -> Path | None:
        with files_told():
            found = configured(file, os.environ, settings)
        suggest(context, found.values, found.origins)
        return file

    return Annotated[
        Path | None,
        typer.Option(
            "--config", help="Settings; by default triune.toml here.", is_eager=True, callback=configure
        ),
    ]  # fmt: skip


def for_models(building: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings of a server of models, where the builder's are `building`."""
    return {**building, MODELS.name: MODELS, **{name: setting for name, setting in SERVER.items() if name != "also"}}


def _each_model(values: Values) -> tuple[Values, ...]:
    """What is asked for, for each model that is to be served."""
    if "models" not in values.settings:
        return (values,)
    for other in ("model", "repository"):
        values = values.one_of("models", other)
    if values["models"]:
        return tuple(values.of_model(entry) for entry in values["models"])
    return (_one_model(values),)


def _one_model(values: Values) -> Values:
    return values.one_of("model", "repository") if "model" in values.settings else values


def _check_no_stack(folder: Path) -> None:
    """Make sure that none was started by this run folder: two servers at a time need one each."""
    if find_state(folder) is not None and (stack := find_stack(folder)) is not None and stack.state is not None:
        raise ServerError(
            f"{stack.state.model} is being served in containers ({stack.project})", "stop them first: `make down`"
        )


def _status(folder: Path, as_json: bool) -> None:
    running = find_running(folder)
    if running is None and (stack := find_stack(folder)) is not None:
        print(stack.told(as_json))
        raise typer.Exit(0 if stack.of("server") else NOT_RUNNING)
    if running is None:
        print(json.dumps({"running": False}) if as_json else in_place("no server is running; start one with `make up`"))
        raise typer.Exit(NOT_RUNNING)
    health = look(running)
    if as_json:
        print(json.dumps({
            "running": True, "ready": health.ready, "pid": running.pid, "model": running.model,
            "repository": str(running.options.repository), "ports": running.options.ports,
            "memory_bytes": health.memory_bytes, "requests": health.requests,
            "models": {name: one.ensemble for name, one in View(folder).served().items()},
        }))  # fmt: skip
        return
    served = View(folder).served()
    print(f"{'ready' if health.ready else 'not ready'}: {running.options.repository} (pid {running.pid})")
    requests = ", ".join(f"{n} {k}" for k, n in health.requests.items()) or "its metrics do not answer"
    print(f"memory {health.memory_bytes / 1e6:,.0f} MB; requests: {requests}")
    if len(served) > 1:
        print("\n".join(f"  {one.ensemble:<8} {name}, {one.repository}" for name, one in served.items()))
    print(where(running.options))


def _logs(log: Path, follow: bool, lines: int) -> None:
    if not log.exists():
        raise ServerError(f"no log at {log}", "start a server with `make up`")
    with log.open(encoding="utf-8", errors="replace") as file:
        print("".join(deque(file, maxlen=lines)), end="", flush=True)
        while follow:
            print(file.readline() or _pause(), end="", flush=True)


def _pause() -> str:
    time.sleep(0.2)
    return ""


@contextmanager
def files_told() -> Iterator[None]:
    """As every command, and with files that cannot be used counted as the user's."""
    with errors_told():
        try:
            yield
        except OSError as error:
            if error.filename is None:
                raise  # not about a file of the user's: our own bug
            raise ServerError(
                f"{error.filename} cannot be used: {error.strerror}", "make it usable, or choose another: RUN_FOLDER=FOLDER"
            ) from error


app = typer.Typer(help="Serve engines with Triton.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
commands(app, {}, None)
