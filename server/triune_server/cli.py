"""Commands of a server: serve, up, down, status, logs. Parses, calls, prints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from triune_runtime.command_line import errors_told, in_place
from triune_runtime.manifest import EngineManifest

from . import logs as own_log
from .background import look, stop_running, stop_supervisor
from .binaries import find_binaries
from .configuration import configured
from .containers import DOCKER, HERE, ContainerStart, check_where
from .errors import ServerError
from .lock import leftovers, lock_for_life, supervisor, tidy
from .settings import MODELS, Setting, Values, server_settings, suggest, with_settings
from .several import add_model, remove_model
from .stack import find_stack, find_state
from .starting import Builder, Start
from .state import begin_log, find_running, log_file
from .supervisor import Supervisor, stop_on_signals
from .telling import hold_standard_streams, tell, where
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
            with suppress(OSError, AttributeError):  # closed, or a full disk
                sys.stdout.flush()
            os.execv(command[0], command)

    def supervise(
        values: Values, settings: Annotated[str, typer.Option(hidden=True, help="What else was chosen, as JSON.")] = "{}"
    ) -> None:
        """Serve in the foreground until ctrl-C; a server that dies is started again."""
        hold_standard_streams()
        own_log.configure(values["log_format"])
        os.umask(0o077)  # logs, state and shared memory are this user's alone
        with files_told():
            folder: Path = values["run_folder"]
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_for_life(folder)  # before anything of the folder is touched
            options = Start(each=(values,), builder=None).prepare()
            begin_log(folder)
            engine = EngineManifest.load(options.repository / ENGINE_FOLDER).inputs_hash
            serving = Supervisor(
                find_binaries(folder), options, folder, settings=json.loads(settings), engine=engine, lock=lock
            )
            stop_on_signals(serving)
            serving.run(lambda: tell(where(options)))

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
        with files_told():
            stack = find_stack(folder)
            running = find_running(folder) is not None
            if stack is None or running or supervisor(folder) is not None:
                print(_down(folder, now=now))
            if stack is not None and (not running or stack.state is not None):
                stack.stop(folder, now=now)
                print(f"stopped the containers of {stack.project}")

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


def _down(folder: Path, *, now: bool) -> str:
    """Stop what runs, and what was left of a server that was killed; what to tell."""
    if (running := find_running(folder)) is not None:
        stop_running(running, folder, now=now)
        return f"stopped (pid {running.pid})"
    if (stray := supervisor(folder)) is not None:  # it starts, or its state file is gone
        stop_supervisor(stray, folder, now=now)
        return f"stopped (pid {stray.pid})"
    ended = tidy(folder)
    return "no server is running" + (f"; ended {ended} processes that one had left which was killed" if ended else "")


def _not_running(folder: Path) -> tuple[dict[str, Any], str]:
    """What there is where no server can be found, as JSON and in words."""
    if (stray := supervisor(folder)) is not None:
        said = f"a server is starting or stopping, or its state file is gone (pid {stray.pid}); `make down` stops it"
        return {"running": False, "pid": stray.pid}, said
    if left := leftovers(folder):
        pids = [process.pid for process in left]
        said = f"no server is running, but {len(left)} processes of one that was killed are left"
        return {"running": False, "left": pids}, f"{said} ({', '.join(map(str, pids))}); `make down` ends them"
    return {"running": False}, "no server is running; start one with `make up`"


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
        raw, said = _not_running(folder)
        print(json.dumps(raw) if as_json else in_place(said))
        raise typer.Exit(NOT_RUNNING)
    health = look(running)
    if as_json:
        print(json.dumps({
            "running": True, "ready": health.ready, "pid": running.pid, "model": running.model,
            "repository": str(running.options.repository), "ports": running.options.ports,
            "memory_bytes": health.memory_bytes, "requests": health.requests,
            "models": {name: one.ensemble for name, one in View(folder).served().items()},
            "restarts": running.restarts, "reason": running.reason, "waiting": running.waiting,
        }))  # fmt: skip
        return
    served = View(folder).served()
    print(f"{'ready' if health.ready else 'not ready'}: {running.options.repository} (pid {running.pid})")
    requests = ", ".join(f"{n} {k}" for k, n in health.requests.items()) or "its metrics do not answer"
    print(f"memory {health.memory_bytes / 1e6:,.0f} MB; requests: {requests}")
    if running.restarts:
        now = "it waits before it starts again" if running.waiting else "it was started again"
        print(f"deaths so far: {running.restarts}; of the latest {now}: {running.reason}")
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
