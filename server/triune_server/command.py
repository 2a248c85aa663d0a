"""The command `triune`: the builder's commands and the server's."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from triune_builder.cli import build, list_built, report

from . import __version__, extras
from .cli import app as server


def _epilog() -> str | None:
    notes = extras.notes()
    return f"\b\n{notes}" if notes else None  # \b: its lines are not joined


app = typer.Typer(
    help="Build engines, serve them with Triton.", epilog=_epilog(), no_args_is_help=True, add_completion=False,
    rich_markup_mode=None,
)  # fmt: skip
app.command()(build)
app.command()(report)
app.command(name="list")(list_built)
app.add_typer(server)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def load(context: typer.Context) -> None:
    """Load-test a server and check every answer; `triune load --help` lists the options."""
    from triune_load.__main__ import main as run_load  # only here: a server has no use for it

    raise typer.Exit(run_load(context.args, prog="triune load"))


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
    try:
        app()
    except ModuleNotFoundError as error:
        extras.tell_missing(error, next((a for a in sys.argv[1:] if not a.startswith("-")), ""))
        sys.exit(1)
