"""Proves a published engine on the machine that is to serve it: `make verify`, python -m triune_builder.verify_published.

Loads what Triton would load, through the runner that serves it; compares it with the float reference on the checkpoint's
own weights, checks that recorded steps give what queued ones give, measures speeds, and writes verified.json and
verified.txt beside the repository. Decides nothing but pass or fail.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from triune_runtime import targets as runtime
from triune_runtime.command_line import errors_told
from triune_runtime.errors import DeviceLost
from triune_runtime.machine import Machine, this_machine
from triune_runtime.manifest import EngineManifest
from triune_runtime.runner import Runner

from .checkpoint import open_checkpoint
from .errors import BuildError
from .inputs import Settings
from .plan import DEFAULT_MODEL, folder_of, repository_of
from .repository.assemble import ENGINE_FOLDER
from .targets import DEFAULT_TARGET, TARGETS, find_target
from .targets.target import budget_of
from .verify.budget import Budget
from .verify.comparison import Source
from .verify.measure import Sizes
from .verify.report import finite
from .verify.speed import Speeds, measure_speeds, replay_error
from .verify.verification import Verification, problems
from .verify.verify import verify

JSON_NAME, TEXT_NAME = "verified.json", "verified.txt"
_BUILD_DIR = Settings().build_dir
_WHOLE = "full"  # the proof that runs an engine as it is served
_MISSED = 2  # exit code of an engine that runs and is over its budget; 1 is for one that does not run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What was found of an engine on a machine."""

    model: str
    target: str
    precision: str
    inputs_hash: str
    machine: str
    verification: Verification
    budget: Budget
    replay_error: float  # between runs of the same step, queued first and recorded later; 0.0: the same bits
    speeds: Speeds

    @property
    def problems(self) -> list[str]:
        """What is over the budget, one sentence each."""
        found = problems(self.verification, self.budget)
        if self.replay_error:
            found.append(f"a step that is run again differs by {self.replay_error:.3g}, it must be the same bits")
        return found

    def write(self, folder: Path) -> Path:
        """Write both reports into `folder`; the readable one's path."""
        raw = finite(dataclasses.asdict(self) | {"problems": self.problems})
        (folder / JSON_NAME).write_text(json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        (folder / TEXT_NAME).write_text(self.text(), "utf-8")
        return folder / TEXT_NAME

    def text(self) -> str:
        """The report as lines."""
        v = self.verification
        kinds = {"decode": v.decode, "prefill": v.prefill}
        lines = [
            f"{self.model} · target {self.target} · precision {self.precision} · {self.inputs_hash[:16]} · {self.machine}",
            "OVER ITS BUDGET: " + "; ".join(self.problems) if self.problems else "within its budget",
            *(
                f"logits error, {kind}: {e.maximum:.3g} max, {e.median:.3g} median of {e.positions} positions; "
                f"KL {e.mean_kl:.3g} mean, {e.maximum_kl:.3g} max"
                for kind, e in kinds.items()
                if e is not None
            ),
            f"perplexity: {v.perplexity_engine:.4f}, float weights {v.perplexity_reference:.4f} (x {v.perplexity_ratio:.5f})",
            f"greedy tokens as the float weights choose: {v.agreement(self.budget.tie):.2%} of {v.greedy_tokens}",
            f"a sequence alone and in a batch: {_alone(v)}; a prompt among other work: {v.repeat_error:.3g}; "
            f"cut into other chunks: {v.chunk_error:.3g}; a step run again: {self.replay_error:.3g} (relative differences)",
            *([] if v.best_errors is None else [f"best tokens that their logits contradict: {v.best_errors}"]),
            *self.speeds.lines(),
        ]
        return "\n".join(lines) + "\n"


def _alone(found: Verification) -> str:
    median = "" if found.batch_median is None else f" at most, {found.batch_median:.3g} the median"
    return f"{found.batch_error:.3g}{median}"


def prove(
    repository: Path,
    checkpoint: Source,
    *,
    machine: Machine | None = None,
    runner: Runner | None = None,
    sizes: Sizes | None = None,
    budget: Budget | None = None,
) -> Proof:
    """Run the engine in `repository` and judge it.

    Args:
        runner: of the engine; by default the one that serves it.
        budget: by default that of its precision, for engines that are run as a whole.

    Raises:
        ManifestError: there is no engine, or it cannot run here.
    """
    folder = repository / ENGINE_FOLDER
    manifest = EngineManifest.load(folder)
    machine = machine or this_machine()
    if runner is None:
        runtime.check_runnable(manifest, folder, machine)
        runner = runtime.make_runner(manifest, folder)
    runner.warm_up()
    return Proof(
        model=manifest.model,
        target=manifest.target,
        precision=manifest.precision,
        inputs_hash=manifest.inputs_hash,
        machine=runtime.find_target(manifest.target).device(machine),
        verification=verify(runner, manifest.limits, checkpoint, sizes=sizes, note=_note),
        budget=budget or budget_of(find_target(manifest.target).precisions[manifest.precision], _WHOLE),
        replay_error=replay_error(runner, manifest.limits, manifest.vocab_size),
        speeds=measure_speeds(runner, manifest.limits, manifest.vocab_size),
    )


def _check_writable(folder: Path) -> None:
    """Make sure that reports can be written into `folder`, if it is there.

    Raises:
        BuildError: this user may not.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise BuildError(
            f"the report of a proof goes to {folder}, which this user, {os.getuid()}, may not write to",
            'run as its owner: in a container with `docker run -u "$(id -u):$(id -g)"`',
        )


def _note(words: str) -> None:
    print(f"verify     {words}", file=sys.stderr, flush=True)


def main(
    model: Annotated[str, typer.Option(help="As it was built: known name, folder, .gguf file or hub id.")] = DEFAULT_MODEL,
    target: Annotated[str, typer.Option(help=f"One of {', '.join(TARGETS)}.")] = DEFAULT_TARGET,
    build_dir: Annotated[Path, typer.Option(help="Where results and caches lie.")] = _BUILD_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")] = False,
) -> None:
    """Run a published engine on this machine, compare it with the float weights, measure it; exit code 2: over its budget."""
    with errors_told():
        machine = this_machine()
        settings = Settings(build_dir=build_dir)
        repository, folder = repository_of(model, target, build_dir), folder_of(model, target, build_dir)
        _check_writable(folder)  # at once, before minutes of work
        runtime.find_target(target).device(machine)  # at once, before anything is read
        EngineManifest.load(repository / ENGINE_FOLDER)  # before a checkpoint is fetched for nothing
        checkpoint: Any = open_checkpoint(model, cache=settings.cache_dir / "checkpoints", progress=_note)
        try:
            proof = prove(repository, checkpoint, machine=machine)
        except DeviceLost as error:
            raise BuildError(str(error)) from error
        report = proof.write(folder)
    if as_json:
        typer.echo(json.dumps({"report": str(report), "problems": proof.problems, "speeds": dataclasses.asdict(proof.speeds)}))
    else:
        typer.echo(proof.text() + str(report))
    if proof.problems:
        raise typer.Exit(_MISSED)


if __name__ == "__main__":
    typer.run(main)
