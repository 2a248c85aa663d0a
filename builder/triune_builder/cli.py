"""The command line: parses, calls, prints. Data on stdout, the rest on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from triune_runtime.errors import TriuneError
from triune_runtime.manifest import Limits

from .errors import BuildError
from .inputs import Settings
from .pipeline import build as run_build
from .plan import DEFAULT_PRECISIONS, PRECISIONS, SPECULATIONS, TARGETS, VERIFICATIONS, BuildPlan
from .progress import Display
from .repository.assemble import ENGINE_FOLDER
from .verify.report import JSON_NAME, BuildReport

_PLAN = {f.name: f.default for f in dataclasses.fields(BuildPlan)}
_LIMITS, _SETTINGS = Limits(), Settings()

app = typer.Typer(
    help="Builds engines and Triton model repositories.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Model = Annotated[str, typer.Option(help="Known name, folder, .gguf file or hub id.")]
Target = Annotated[str, typer.Option(help=f"Where the engine will run: {', '.join(TARGETS)}.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help=f"Numbers of the weights: {', '.join(PRECISIONS)}; by default "
        + ", ".join(f"{precision} for {target}" for target, precision in DEFAULT_PRECISIONS.items())
        + "."
    ),
]
ComputeCapability = Annotated[
    list[str] | None,
    typer.Option(help="Of a GPU that a TensorRT engine is for, e.g. 8.9; may be repeated. By default all from 8.0 on."),
]
WeightStreaming = Annotated[
    bool, typer.Option("--weight-streaming", help="TensorRT: weights may stay in host memory where the GPU's is too small.")
]
Verify = Annotated[
    str,
    typer.Option(
        help=f"How the engine is proved: {', '.join(VERIFICATIONS)}. Layers: over prompts, a few weights in memory at a time; "
        "auto: full where the engine fits in the memory that is free, else layers."
    ),
]
Speculation = Annotated[
    str,
    typer.Option(
        help=f"Whether the engine can check drafts of further tokens: {', '.join(SPECULATIONS)}. It is in memory twice then."
    ),
]
MaxSequences = Annotated[int, typer.Option(help="Sequences computed at once; each has a KV slot.")]
MaxLength = Annotated[int, typer.Option(help="Tokens of one sequence, prompt and answer together.")]
PrefillChunk = Annotated[int, typer.Option(help="Prompt tokens computed in one run.")]
BuildDir = Annotated[Path, typer.Option(help="Where results and caches lie.")]
Repository = Annotated[Path, typer.Option(help="The checked-in Triton configs and code.")]
Force = Annotated[bool, typer.Option("--force", help="Do every stage again.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the checkpoint's headers and write the graph and the plan; reads no weight.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")]


@app.command()
def build(
    model: Model = str(_PLAN["model"]),
    target: Target = str(_PLAN["target"]),
    precision: Precision = None,
    compute_capability: ComputeCapability = None,
    weight_streaming: WeightStreaming = False,
    max_sequences: MaxSequences = _LIMITS.max_sequences,
    max_length: MaxLength = _LIMITS.max_length,
    prefill_chunk: PrefillChunk = _LIMITS.prefill_chunk,
    build_dir: BuildDir = _SETTINGS.build_dir,
    model_repository: Repository = _SETTINGS.model_repository,
    verify: Verify = str(_PLAN["verify"]),
    speculation: Speculation = str(_PLAN["speculation"]),
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build an engine, prove it, and publish a model repository; prints the repository's path last."""
    with _errors_told():
        limits = Limits(max_sequences=max_sequences, max_length=max_length, prefill_chunk=prefill_chunk)
        plan = BuildPlan(
            model=model,
            target=target,
            precision=precision or DEFAULT_PRECISIONS.get(target, ""),
            verify=verify,
            speculation=speculation,
            limits=limits,
            compute_capabilities=tuple(compute_capability or ()),
            weight_streaming=weight_streaming,
        )
        settings = Settings(build_dir=build_dir, model_repository=model_repository)
        if dry_run:
            _dry_run(plan, settings, as_json)
            return
        built = run_build(plan, settings, force=force, display=Display())
        if as_json:
            report = BuildReport.read(built.repository / ENGINE_FOLDER)
            found = report.verification
            typer.echo(json.dumps({
                "repository": str(built.repository),
                "hash": built.inputs_hash,
                "unchanged": built.unchanged,
                "perplexity_reference": found and found.perplexity_reference,
                "perplexity_engine": found and found.perplexity_engine,
                "greedy_agreement": found and found.agreement(report.budget.tie),
                "seconds": round(sum(s.seconds for s in report.stages if not s.reused), 1),
            }))  # fmt: skip
        else:
            typer.echo(str(built.repository))


def _dry_run(plan: BuildPlan, settings: Settings, as_json: bool) -> None:
    from .dry_run import dry_run  # imports onnx

    found = dry_run(plan, settings, display=Display())
    if as_json:
        typer.echo(json.dumps(found.estimate.to_json() | {"plan": str(found.folder)}))
    else:
        Console().print(found.estimate.tables())
        typer.echo(str(found.folder))


@app.command()
def report(
    model: Model = str(_PLAN["model"]),
    target: Target = str(_PLAN["target"]),
    build_dir: BuildDir = _SETTINGS.build_dir,
    as_json: Json = False,
) -> None:
    """Show what the last published build measured."""
    with _errors_told():
        folder = BuildPlan(model=model, target=target).repository(build_dir) / ENGINE_FOLDER
        found = BuildReport.read(folder)
        if as_json:
            raw: Any = json.loads((folder / JSON_NAME).read_text("utf-8"))
            typer.echo(json.dumps(raw, ensure_ascii=False))
        else:
            Console().print(found.tables())


@contextmanager
def _errors_told() -> Iterator[None]:
    """Print our own errors as `error:` and `hint:` on stderr and end with exit code 1."""
    try:
        yield
    except BuildError as error:
        _tell(error.args[0], error.hint)
        raise typer.Exit(1) from error
    except TriuneError as error:
        _tell(error.args[0], error.hint)
        raise typer.Exit(1) from error


def _tell(message: str, hint: str | None) -> None:
    print(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""), file=sys.stderr)
