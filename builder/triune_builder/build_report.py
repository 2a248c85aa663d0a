"""What the report says of a build: the checkpoint, the engine that was made of it, what was measured. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from triune_runtime.manifest import EngineManifest

from .inputs import Inputs, named
from .targets.facts import EngineFacts
from .targets.target import Target, budget_of
from .verify.report import BuildReport, Source, StageRun
from .verify.verification import Verification

if TYPE_CHECKING:
    from .checkpoint import Checkpoint


def report_of(
    inputs: Inputs,
    target: Target,
    checkpoint: Checkpoint,
    facts: EngineFacts,
    manifest: EngineManifest,
    found: Verification | None,
    runs: Sequence[StageRun],
) -> BuildReport:
    """The report of an engine, within its budget or not; `runs` are the stages so far."""
    hashes, plan = inputs.checkpoint(checkpoint.files), inputs.plan
    return BuildReport(
        model=manifest.model,
        target=plan.target,
        precision=plan.precision,
        inputs_hash=manifest.inputs_hash,
        sources=tuple(
            Source(name=name, bytes=path.stat().st_size, sha256=hashes[name]) for name, path in named(checkpoint.files).items()
        )
        + tuple(
            Source(name=f"calibration: {text.file}", bytes=len(text.text.encode()), sha256=text.sha256)
            for text in plan.calibration
        ),
        tools=inputs.tools,
        stages=tuple(runs),
        limits=(
            ("sequences at once", f"{plan.limits.max_sequences:,}"),
            ("tokens of a sequence", f"{plan.limits.max_length:,}, {inputs.why}"),
        ),
        changes=facts.changes,
        verification=found,
        unproved=target.unproved,
        budget=budget_of(target.precisions[plan.precision], manifest.verified),
    )
