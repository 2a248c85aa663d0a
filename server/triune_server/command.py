"""The command `triune`: the builder's commands, the server's, and those that talk to what runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from triune_builder.cli import build, compare, list_built, plan, report
from triune_runtime.command_line import FAILED, errors_told

from . import __version__, extras
from .building import Building
from .cli import SERVER, commands, config_option, files_told, for_models
from .configuration import configured
from .doctor.command import commands as doctor_commands
from .errors import ServerError
from .exposure import check_open, own_key
from .gateway import check_key_file, gateway_alone
from .health import main as check_health
from .node import commands as node_commands
from .options import ServerOptions
from .settings import ENVIRONMENT, Values, with_settings
from .stack import find_stack
from .state import find_running
from .surroundings import NOTHING
from .telling import tell
from .tls import check_tls, trust

_BUILDING = Building()
SETTINGS = for_models(_BUILDING.settings)
_CONFIG = config_option(SETTINGS)
_RUN_FOLDER = {"run_folder": SERVER["run_folder"]}
_GATEWAY = {
    name: SERVER[name]
    for name in (
        "repository", "name", "host", "openai_host", "openai_port", "api_key_file", "tls_cert", "tls_key", "cors", "access_log",
        "responses_file", "drain_s", "log_format", "otlp", "insecure",
    )
}  # fmt: skip
_NAMING = ("model", "target", "build_dir")  # which repository
_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True}  # another command's, passed on


def _epilog() -> str | None:
    notes = extras.notes()
    return f"\b\n{notes}" if notes else None  # \b: its lines are not joined


app = typer.Typer(
    help="Build engines, serve them with Triton.", epilog=_epilog(), no_args_is_help=True, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip


def _verify(values: Values, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False) -> None:
    """Run a published engine on this machine, compare it with the float weights, measure it; exit code 2: over its budget."""
    from triune_builder.verify_published import main as prove  # needs what `triune --help` must do without

    prove(values["model"], values["target"], values["build_dir"], as_json)


_ITS = {name: SETTINGS[name] for name in _NAMING}
for _name, _command, _settings in (
    ("build", build, {}), ("report", report, {}), ("list", list_built, {}), ("verify", _verify, _ITS), ("compare", compare, {}),
):  # fmt: skip
    app.command(_name)(with_settings(_command, _settings, _CONFIG))
app.command("plan")(plan)  # of machines elsewhere: this one's settings say nothing about them
commands(app, SETTINGS, _BUILDING)


def _show_settings(
    values: Values,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:  # fmt: skip
    """Each setting: its value, and who said it (an option, the environment or make, a file; or the default)."""
    with files_told():
        _BUILDING.check(values)
    found = {name: values[name] for name in SETTINGS}
    if as_json:
        shown = {name: {"value": found[name], "origin": values.origins[name]} for name in found}
        print(json.dumps(shown, default=str, ensure_ascii=False))
        return
    table = Table("setting", "value", "from", "make variable")
    for name, setting in SETTINGS.items():
        said, value = values.origins[name], found[name]
        text = "" if value is None else " ".join(value) if isinstance(value, tuple) else str(value)
        table.add_row(name, text, f"make, or {setting.environment}" if said == ENVIRONMENT else said, setting.variable)
    Console().print(table)


def _options_of(run_folder: Path) -> ServerOptions | None:
    """Of what runs, here or in containers; None: nothing does."""
    if (running := find_running(run_folder)) is not None:
        return running.options
    return stack.options if (stack := find_stack(run_folder)) else None


def _show_repository(
    values: Values,
    build: Annotated[bool, typer.Option("--build", help="Build it first, if it is not current.")] = False,
) -> None:  # fmt: skip
    """Where the model's repository lies: the one that is asked for, or else of what runs."""
    with files_told():
        if not values.asked((*_NAMING, "models")) and (options := _options_of(values["run_folder"])):
            print(options.repository)
        elif build:
            print(_BUILDING.build(values))
        else:
            print(_BUILDING.repository(values))


def _examined(values: Values) -> Path | None:
    """The repository that `doctor` looks at: of what is asked for, else of what runs, else of the default model."""
    if not values.asked(_NAMING) and (running := find_running(values["run_folder"])) is not None:
        return running.options.repository
    return _BUILDING.repository(values)


app.command("config")(with_settings(_show_settings, SETTINGS, _CONFIG))
app.command("repository")(with_settings(_show_repository, SETTINGS, _CONFIG))
node_commands(app, _ITS | {name: SERVER[name] for name in ("repository", "drain_s")}, _CONFIG, _BUILDING.repository)
doctor_commands(app, _ITS | _RUN_FOLDER, _CONFIG, _examined)


def _running(values: Values) -> ServerOptions:
    if (options := _options_of(values["run_folder"])) is None:
        raise ServerError("no server is running", "start one with `make up`")
    return options


def _chat(context: typer.Context, values: Values) -> None:
    """Talk to the server that runs; takes the options of `python -m triune_client chat`."""
    from triune_client.__main__ import main as client  # needs what `triune --help` must do without

    arguments: Sequence[str] = context.args
    with files_told():
        options = _running(values)
    url = options.grpc_url if "--grpc" in arguments else options.http_url
    if key := own_key(options):
        os.environ.setdefault("TRIUNE_API_KEY", key["authorization"].removeprefix("Bearer "))
    raise typer.Exit(client(["chat", f"--url={url}", *trust(options, url), *arguments]))


app.command("chat", context_settings=_ARGUMENTS)(with_settings(_chat, _RUN_FOLDER, _CONFIG))


def _gateway(
    context: typer.Context,
    values: Values,
    grpc_url: Annotated[str, typer.Option(help="gRPC address of the server behind it.")] = "127.0.0.1:8001",
) -> None:
    """Serve the OpenAI-compatible API alone, before a server elsewhere; takes the options of `python -m triune_gateway`."""
    options = {name: values[name] for name in _GATEWAY}
    options["repository"] = options["repository"] or Path(os.devnull)  # none: the model has no further name
    with files_told():
        chosen = ServerOptions(**options)
        check_open(chosen, ("openai",))
        for note in check_tls(chosen):
            tell(note)
        if chosen.api_key_file is not None:
            check_key_file(chosen.api_key_file, private=False)
        command = gateway_alone(chosen, grpc_url, context.args)
    if chosen.log_format == "text":
        print(
            f"serving {chosen.openai_url}/v1 for the server at {grpc_url}; until that is ready, answers say 503",
            file=sys.stderr,
        )
    os.execve(command[0], command, {**os.environ, **NOTHING.environment(chosen)})


app.command("gateway", context_settings=_ARGUMENTS)(with_settings(_gateway, _GATEWAY, _CONFIG))


@app.command(add_help_option=False, context_settings=_ARGUMENTS)
def health(context: typer.Context) -> None:
    """Whether the server lives, can generate, or does: exit code 0 or 1; `triune health --help` lists the options."""
    raise typer.Exit(check_health(context.args))


@app.command(add_help_option=False, context_settings=_ARGUMENTS)
def load(context: typer.Context) -> None:
    """Load-test a server and check every answer; `triune load --help` lists the options."""
    from triune_load.__main__ import main as run_load  # only here: a server has no use for it

    with files_told():
        said = configured(None, os.environ, SETTINGS).values
    folder = said.get("run_folder", SERVER["run_folder"].default)
    arguments = [f"--running={folder}" if argument == "--running" else argument for argument in context.args]
    asked = next((one.partition("=")[2] for one in arguments if one.startswith("--running=")), None)
    if asked is not None and (options := _options_of(Path(asked))) is not None:
        arguments += trust(options, options.openai_url)
    raise typer.Exit(run_load(arguments, prog="triune load"))


def _print_version(asked: bool) -> None:
    if asked:
        print(f"triune {__version__}")
        raise typer.Exit


@app.callback()
def triune(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build engines, serve them with Triton."""


def main() -> None:
    """Entry point of the command `triune`."""
    with errors_told(passing=()):
        try:
            app(prog_name="triune")  # however it was started
        except ModuleNotFoundError as error:
            extras.tell_missing(error, next((a for a in sys.argv[1:] if not a.startswith("-")), ""))
            sys.exit(FAILED)


if __name__ == "__main__":
    main()
