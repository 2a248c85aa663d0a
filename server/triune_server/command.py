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


def main() -> None:
    """Entry point of the command `triune`."""
    app()
