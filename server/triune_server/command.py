"""The command `triune`: the builder's commands and the server's."""

from __future__ import annotations

import typer

from triune_builder.cli import build, report

from .cli import app as server

app = typer.Typer(
    help="Build engines, serve them with Triton.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
app.command()(build)
app.command()(report)
app.add_typer(server)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def load(context: typer.Context) -> None:
    """Load-test a server and check every answer; `triune load --help` lists the options."""
    from triune_load.__main__ import main as run_load  # only here: a server has no use for it

    raise typer.Exit(run_load(context.args, prog="triune load"))


def main() -> None:
    """Entry point of the command `triune`."""
    app()
