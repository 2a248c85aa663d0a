"""`triune plan`: parses, plans, prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from triune_runtime.command_line import errors_told

from ..errors import BuildError
from ..inputs import Settings

if TYPE_CHECKING:
    from .report import Report

_SETTINGS = Settings()

Model = Annotated[str | None, typer.Argument(help="Known name, folder, .gguf file, config.json, or hub id in the hub's cache.")]
Params = Annotated[float | None, typer.Option(help="Without MODEL: how many parameters, e.g. 45e9; with the next five.")]
Layers = Annotated[int | None, typer.Option(help="Layers.")]
Hidden = Annotated[int | None, typer.Option(help="Width.")]
Heads = Annotated[int | None, typer.Option(help="Query heads.")]
KvHeads = Annotated[int | None, typer.Option(help="Key-value heads; by default as many as heads.")]
Vocab = Annotated[int | None, typer.Option(help="Vocabulary.")]
Experts = Annotated[int, typer.Option(help="Experts of each layer; 0: a dense model.")]
PerToken = Annotated[int, typer.Option("--experts-per-token", help="Of these, chosen for a token.")]
GpuName = Annotated[str, typer.Option("--gpu", help="rtx4090, rtx5090, l4, l40s, a100-40, a100-80, h100, h100-pcie, h200, "
                                      "b200, gb200, mi300x; or any name with the next three.")]  # fmt: skip
Memory = Annotated[float | None, typer.Option(help="GB of a GPU.")]
Bandwidth = Annotated[float | None, typer.Option(help="GB/s of its memory.")]
Rate = Annotated[float | None, typer.Option(help="TFLOP/s of its dense 16-bit products.")]
Link = Annotated[float | None, typer.Option(help="GB/s each way to the GPUs of its machine.")]
Gpus = Annotated[int, typer.Option(help="How many GPUs.")]
PerMachine = Annotated[int, typer.Option("--gpus-per-machine", help="How many have links to each other; of GB200 up to 72.")]
Network = Annotated[float, typer.Option(help="Gbit/s of one GPU to other machines.")]
Precision = Annotated[str, typer.Option(help="auto (fp8 where it is stored so, else bf16), fp32, bf16, fp16, fp8, int4.")]
KvDtype = Annotated[str, typer.Option(help="Of keys and values: auto, bf16, fp16, fp8.")]
Tensor = Annotated[int | None, typer.Option(help="Ranks that share a layer; of these three, what is left out is chosen.")]
Pipeline = Annotated[int | None, typer.Option(help="Stages.")]
Data = Annotated[int | None, typer.Option(help="Replicas that share the load.")]
Expert = Annotated[str, typer.Option(help="Whole experts on ranks: on, off, auto.")]
Mtp = Annotated[bool, typer.Option("--mtp", help="Load the layers that predict further tokens.")]
Engine = Annotated[str, typer.Option(help="Whose measured overheads count: triune, vllm; auto: vllm for several GPUs.")]
Sequences = Annotated[int, typer.Option(help="Sequences at once that the split is chosen for.")]
Prompt = Annotated[int, typer.Option(help="Tokens of a prompt.")]
Output = Annotated[int, typer.Option(help="Tokens of an answer.")]
StepTokens = Annotated[int, typer.Option(help="Prompt tokens of one step.")]
Simulated = Annotated[str | None, typer.Option("--simulate", help="A trace (JSON lines or CSV: arrival, prompt, output), or "
                                               "poisson:RATE,PROMPT,OUTPUT.")]  # fmt: skip
Requests = Annotated[int, typer.Option(help="Requests of the simulation, at most.")]
Replicas = Annotated[int | None, typer.Option(help="Times that the plan stands; by default as often as --slo needs.")]
Slo = Annotated[str, typer.Option(help="Objectives of each request: first_token, between, end_to_end.")]
Seed = Annotated[int, typer.Option(help="Of the simulation's chance.")]
Plot = Annotated[Path | None, typer.Option(help="Write memory by part and throughput by batch to this page.")]
Json = Annotated[bool, typer.Option("--json", help="Print the plan as one JSON line.")]


def plan(
    model: Model = None, params: Params = None, layers: Layers = None, hidden: Hidden = None, heads: Heads = None,
    kv_heads: KvHeads = None, vocab: Vocab = None, experts: Experts = 0, experts_per_token: PerToken = 0,
    gpu: GpuName = "h200", gpu_memory: Memory = None, bandwidth: Bandwidth = None, matrix_rate: Rate = None, link: Link = None,
    gpus: Gpus = 1, gpus_per_machine: PerMachine = 8, network: Network = 400.0,
    precision: Precision = "auto", kv_dtype: KvDtype = "auto",
    tensor_parallel: Tensor = None, pipeline_parallel: Pipeline = None, data_parallel: Data = None,
    expert_parallel: Expert = "auto", mtp: Mtp = False, engine: Engine = "auto",
    sequences: Sequences = 64, prompt: Prompt = 1024, output: Output = 1024, step_tokens: StepTokens = 8192,
    simulate: Simulated = None, requests: Requests = 10_000, replicas: Replicas = None,
    slo: Slo = "first_token=2s,between=100ms", seed: Seed = 0, plot: Plot = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Say what a model needs on which GPUs, how to split it, and how fast it will be; reads no weight."""
    given = dict(locals())
    with errors_told():
        from .asking import Asked, report_of  # imports onnx_ir

        if plot is not None and plot.suffix != ".html":
            raise BuildError(f"--plot is {plot}; it is the name of a page, FILE.html", "choose e.g. --plot plan.html")
        asked = Asked(**{name: value for name, value in given.items() if name not in ("plot", "as_json")})
        found = report_of(asked, _SETTINGS.cache_dir / "checkpoints")
        if plot is not None:
            _write(plot, _drawn(found))
        if as_json:
            typer.echo(json.dumps(found.to_json()))
        else:
            Console().print(found.tables())


def _drawn(found: Report) -> str:
    try:
        from .drawing import draw
    except ModuleNotFoundError as error:
        raise BuildError("--plot draws with triune_load, which is not installed", 'pip install "triune[load]"') from error
    return draw(found)


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise BuildError(
            f"--plot is {path}, which cannot be written: {error.strerror}", "choose e.g. --plot plan.html"
        ) from error
