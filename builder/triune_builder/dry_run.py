"""`triune build --dry-run`: checks a checkpoint's headers against its config.json and writes the plan. Reads no weight.

Imports heavy packages; the command line imports it when it is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .checkpoint import Checkpoint, open_checkpoint
from .errors import BuildError
from .estimate import Estimate, estimate, room_of
from .fingerprint import write_atomically
from .graph.export import export
from .graph.promises import check_weights
from .inputs import Settings
from .plan import BuildPlan
from .progress import Display
from .shapes import check_shapes
from .targets import every_target, find_target, onnx_files
from .text_checks import check_text

PLAN = "plan"  # beside the repository
_JSON = "plan.json"


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a dry run made."""

    folder: Path  # model.onnx (and mtp.onnx), the float graph without its weights, and plan.json
    estimate: Estimate


def dry_run(plan: BuildPlan, settings: Settings | None = None, *, display: Display | None = None) -> DryRun:
    """Check everything about `plan` that headers tell, and write the float graph and the plan.

    Raises:
        BuildError: the checkpoint is not what its config.json promises; names every weight that is missing, spare or
            misshapen. Or a choice that this build cannot have.
    """
    settings, display = settings or Settings(), display or Display()
    if find_target(plan.target).estimate is None:
        able = [target.name for target in every_target() if target.estimate]
        raise BuildError(
            f"a dry run estimates engines for target {', '.join(able)}, not for {plan.target}",
            "leave out --target, or --dry-run",
        )
    with display.stage("fetch") as clock:
        cache = settings.cache_dir / "checkpoints"
        checkpoint = open_checkpoint(plan.model, cache=cache, progress=clock.note, headers_only=True)
    display.notes(checkpoint.notes)
    with display.stage("check"):
        check_weights(checkpoint.config, checkpoint.weights)
        check_text(checkpoint)
        plan, why = plan.sized(room_of(plan, checkpoint))
        check_shapes(plan, checkpoint, find_target(plan.target))
    return _write(plan, why, settings, checkpoint, display)


def _write(plan: BuildPlan, why: str, settings: Settings, checkpoint: Checkpoint, display: Display) -> DryRun:
    folder = plan.folder(settings.build_dir) / PLAN
    folder.mkdir(parents=True, exist_ok=True)
    with display.stage("export"):
        bundle = export(checkpoint, max_length=plan.limits.max_length, with_mtp=True, reads_head=False)
        for remark in bundle.remarks:
            display.say(f"{'export':<10} {remark}")
        for name, graph in ((onnx_files.MODEL, bundle), (onnx_files.MTP, bundle.mtp)):
            (folder / name).unlink(missing_ok=True)
            if graph is not None:
                onnx_files.write_graph(graph, folder / name)
    found = estimate(plan, why, checkpoint.config, checkpoint.weights, bundle.cache)
    write_atomically(folder / _JSON, json.dumps(found.to_json(), indent=2) + "\n")
    return DryRun(folder=folder, estimate=found)
