"""The command line: parses, calls, prints. Data on stdout, the rest on stderr."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.console import Console

from triune_runtime.command_line import errors_told
from triune_runtime.manifest import Limits

from .comparing.command import compare as compare
from .inputs import Settings
from .pipeline import build as run_build
from .places import built, nothing_built
from .plan import AUTO, NONE, BuildPlan, is_given, plan_of, repository_of
from .planning.command import plan as plan
from .progress import Display
from .quantize.policy import ROUNDINGS
from .repository.assemble import ENGINE_FOLDER
from .targets import TARGETS, every_target
from .verify.report import JSON_NAME, BuildReport, finite

_PLAN = {f.name: f.default for f in dataclasses.fields(BuildPlan)}
_LIMITS, _SETTINGS = Limits(), Settings()
_FLAGS = [flag for target in every_target() for flag in target.flags]

app = typer.Typer(
    help="Builds engines and Triton model repositories.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


def _each(values: Iterable[Iterable[str]]) -> str:
    """All values that some target takes, each once."""
    return ", ".join(dict.fromkeys(value for of_target in values for value in of_target))


Model = Annotated[str, typer.Option(help="Known name, folder, .gguf file or hub id.")]
Target = Annotated[str, typer.Option(help=f"Where the engine will run: {', '.join(TARGETS)}.")]
Precision = Annotated[
    str | None,
    typer.Option(
        help=f"Numbers of the weights: {_each(t.precisions for t in every_target())}; by default "
        + ", ".join(f"{t.default_precision} for {t.name}" for t in every_target())
        + "."
    ),
]
Verify = Annotated[
    str,
    typer.Option(
        help=f"How the engine is proved: {_each([[AUTO], *(t.proofs for t in every_target()), [NONE]])}. "
        + " ".join(t.proofs_help for t in every_target())
    ),
]
Rounding = Annotated[
    str, typer.Option(help=f"Codes of four bits: {', '.join(ROUNDINGS)}. GPTQ loses less, in minutes.")
]  # fmt: skip
Calibration = Annotated[
    list[str] | None, typer.Option(metavar="FILE", help="Your own text to calibrate on; repeatable.")
]  # fmt: skip
Speculation = Annotated[
    str,
    typer.Option(
        help=f"Whether the engine can check drafts: {_each(t.speculations for t in every_target())}. "
        "It is in memory twice then."
    ),
]
MaxSequences = Annotated[int, typer.Option(help="Sequences computed at once; each has a KV slot.")]
MaxLength = Annotated[
    str,
    typer.Option(
        metavar=f"NUMBER|{AUTO}",
        help=f"Tokens of one sequence, prompt and answer together; {AUTO}: the model's own length, as far as memory allows.",
    ),
]
PrefillChunk = Annotated[int, typer.Option(help="Prompt tokens of one run.")]
BuildDir = Annotated[Path, typer.Option(help="Results and caches.")]
Repository = Annotated[Path, typer.Option(help="The checked-in Triton configs and code.")]
Force = Annotated[bool, typer.Option("--force", help="Do every stage again.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the checkpoint's headers and write the graph and the plan; reads no weight.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")]


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the targets' flags in the place of its parameter `options`, which gets those that are given."""
    parameters = list(inspect.signature(command, eval_str=True).parameters.values())
    at = next(i for i, parameter in enumerate(parameters) if parameter.name == "options")
    parameters[at : at + 1] = [
        inspect.Parameter(
            flag.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if flag.kind is bool else None,
            annotation=Annotated[
                flag.kind if flag.kind is bool else flag.kind | None, typer.Option(flag.option, help=flag.help)
            ],
        )
        for flag in _FLAGS
    ]

    def run(**values: Any) -> None:  # Typer passes what the signature below names
        options = {flag.name: value for flag in _FLAGS if is_given(value := values.pop(flag.name))}
        command(options=options, **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature([  # type: ignore[attr-defined]  # which `inspect` reads
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters
    ])  # fmt: skip
    return run


@app.command()
@_with_flags
def build(
    model: Model = str(_PLAN["model"]),
    target: Target = str(_PLAN["target"]),
    precision: Precision = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    max_sequences: MaxSequences = _LIMITS.max_sequences,
    max_length: MaxLength = AUTO,
    prefill_chunk: PrefillChunk = _LIMITS.prefill_chunk,
    build_dir: BuildDir = _SETTINGS.build_dir,
    model_repository: Repository = _SETTINGS.model_repository,
    verify: Verify = str(_PLAN["verify"]),
    rounding: Rounding = str(_PLAN["rounding"]),
    calibration: Calibration = None,
    speculation: Speculation = str(_PLAN["speculation"]),
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Build an engine, prove it, and publish a model repository; prints the repository's path last."""
    with errors_told():
        plan = plan_of({
            "model": model, "target": target, "precision": precision, "verify": verify, "rounding": rounding,
            "calibration": calibration, "speculation": speculation, "max_sequences": max_sequences, "max_length": max_length,
            "prefill_chunk": prefill_chunk, **options,
        })  # fmt: skip
        settings = Settings(build_dir=build_dir, model_repository=model_repository)
        if dry_run:
            _dry_run(plan, settings, as_json)
            return
        made = run_build(plan, settings, force=force, display=Display())
        if as_json:
            report = BuildReport.read(made.repository / ENGINE_FOLDER)
            found = report.verification
            typer.echo(json.dumps(finite({
                "repository": str(made.repository),
                "hash": made.inputs_hash,
                "unchanged": made.unchanged,
                "perplexity_reference": found and found.perplexity_reference,
                "perplexity_engine": found and found.perplexity_engine,
                "greedy_agreement": found and found.agreement(report.budget.tie),
                "seconds": round(sum(s.seconds for s in report.stages if not s.reused), 1),
            })))  # fmt: skip
        else:
            typer.echo(str(made.repository))


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
    with errors_told():
        folder = repository_of(model, target, build_dir) / ENGINE_FOLDER
        if not folder.is_dir():
            raise nothing_built(model, target, build_dir)
        found = BuildReport.read(folder)
        if as_json:
            raw: Any = json.loads((folder / JSON_NAME).read_text("utf-8"))
            typer.echo(json.dumps(raw, ensure_ascii=False))
        else:
            Console().print(found.tables())


app.command()(plan)
app.command()(compare)


@app.command(name="list")
def list_built(build_dir: BuildDir = _SETTINGS.build_dir, as_json: Json = False) -> None:
    """Show what is built: models, targets, precisions, limits and where they lie."""
    with errors_told():
        found = built(build_dir)
        if as_json:
            typer.echo(json.dumps([dataclasses.asdict(one) | {"repository": str(one.repository)} for one in found]))
            return
        for one in found:
            limits = f"{one.max_sequences} sequences of {one.max_length:,} tokens"
            typer.echo(f"{one.model}  {one.target} {one.precision}, {limits}\n    {one.repository}")
        if not found:
            typer.echo(f"nothing is built in {build_dir}; `make engine MODEL=...` builds")
