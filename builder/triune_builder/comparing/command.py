"""`triune compare`: parses, compares, prints."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from triune_runtime.command_line import errors_told
from triune_runtime.manifest import Limits

from ..errors import BuildError
from ..inputs import Settings
from ..plan import AUTO, DEFAULT_MODEL
from ..progress import Display
from ..targets import DEFAULT_TARGET, TARGETS
from .article import to_json
from .asking import asked_of, can_be_measured
from .rows import Comparison

_SETTINGS, _LIMITS = Settings(), Limits()
_RASTERIZER = "rsvg-convert"  # makes PNG of SVG, where it is installed

Named = Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Models, instead of --model.", show_default=False)]
Model = Annotated[str, typer.Option(help="Known name, folder, .gguf file or hub id.")]
Precisions = Annotated[
    str, typer.Option(help="With commas; int4-gptq: codes by GPTQ. By default those that quantize, and the float weights.")
]
Target = Annotated[str, typer.Option(help=f"Where the engines run: {', '.join(filter(can_be_measured, TARGETS))}.")]
Text = Annotated[
    list[str] | None, typer.Option(metavar="[KIND=]FILE", help="A text of your own to read, too; may be repeated.")
]
Calibration = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="As of `triune build`, of the precisions that calibrate.")
]
Problems = Annotated[int, typer.Option(help="Of each kind that the model has problems of: r1-nano.")]
Rounds = Annotated[int, typer.Option(help="Times that speeds are measured, the engines by turns.")]
MaxSequences = Annotated[int, typer.Option(help="Sequences computed at once.")]
MaxLength = Annotated[str, typer.Option(metavar=f"NUMBER|{AUTO}", help="Tokens of one sequence.")]
PrefillChunk = Annotated[int, typer.Option(help="Prompt tokens of one run.")]
Plot = Annotated[Path | None, typer.Option(help="Draw loss by size and by speed: FILE.svg, or .png.")]
BuildDir = Annotated[Path, typer.Option(help="Caches.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the figures as one table of Markdown.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")]


def compare(
    named: Named = None, model: Model = DEFAULT_MODEL, precisions: Precisions = "", target: Target = DEFAULT_TARGET,
    text: Text = None, calibration: Calibration = None, problems: Problems = 10, rounds: Rounds = 3,
    max_sequences: MaxSequences = _LIMITS.max_sequences, max_length: MaxLength = AUTO,
    prefill_chunk: PrefillChunk = _LIMITS.prefill_chunk, build_dir: BuildDir = _SETTINGS.build_dir,
    plot: Plot = None, as_markdown: Markdown = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Build each precision of a model and measure here what it loses and what it costs; publishes nothing."""
    with errors_told():
        if plot is not None:
            _check(plot)
        chosen = {
            "target": target, "max_sequences": max_sequences, "max_length": max_length, "prefill_chunk": prefill_chunk,
        }  # fmt: skip
        every = [
            asked_of(
                name, precisions, chosen, calibration=calibration or (), texts=text or (), problems=problems, rounds=rounds
            )
            for name in named or [model]
        ]
        from .running import compare as run  # imports NumPy

        found = [run(asked, Settings(build_dir=build_dir), Display()) for asked in every]
        if plot is not None:
            _draw(found, plot)
        if as_json:
            typer.echo(json.dumps({"models": [one.to_json() | {"article": to_json(one)} for one in found]}))
        else:
            from .table import markdown, tables

            for one in found:
                if as_markdown:
                    typer.echo(markdown(one))
                else:
                    Console(markup=False).print(tables(one))
    if not any(row.found for one in found for row in one.rows):
        raise typer.Exit(1)


def _check(plot: Path) -> None:
    """Refuse, before minutes of work, what could not be drawn."""
    if plot.suffix not in (".svg", ".png"):
        raise BuildError(f"--plot is {plot}; it is the name of a picture, FILE.svg or FILE.png", "e.g. --plot compare.svg")
    if plot.suffix == ".png" and shutil.which(_RASTERIZER) is None:
        raise BuildError(
            f"--plot is {plot}, and PNG is made by {_RASTERIZER}, which is not installed",
            f"install it (Debian: librsvg2-bin), or draw --plot {plot.with_suffix('.svg')}",
        )
    if not plot.absolute().parent.is_dir():
        raise BuildError(f"--plot is {plot}, whose folder is not there", "make the folder, or choose e.g. --plot compare.svg")
    try:
        from . import drawing as drawing
    except ModuleNotFoundError as error:
        raise BuildError("--plot draws with triune_load, which is not installed", 'pip install "triune[load]"') from error


def _draw(found: Sequence[Comparison], plot: Path) -> None:
    from .drawing import draw

    try:
        if plot.suffix == ".svg":
            plot.write_text(draw(found), "utf-8")
        else:
            subprocess.run([_RASTERIZER, "--zoom=2", "--output", plot], input=draw(found).encode(), check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"--plot is {plot}, which cannot be drawn: {error}", "choose e.g. --plot compare.svg") from error
