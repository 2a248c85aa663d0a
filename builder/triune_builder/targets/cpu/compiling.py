"""The stages of a build for the CPU, from a checkpoint to engine files. Imports heavy packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from triune_runtime.manifest import MtpEngine, Speculation
from triune_runtime.targets.cpu.plan import HEADS

from ...checkpoint import Checkpoint
from ...errors import BuildError, option
from ...graph.export import GraphBundle, export
from ...graph.promises import check_weights, settled_config
from ...lengths import own_length
from ...plan import BuildPlan
from ...quantize.apply import Change
from .. import onnx_files
from ..calibration import forget, quantize_calibrated
from ..facts import EngineFacts, record
from ..target import StageFactory
from . import drafts, lowering, stored
from .precisions import find_precision
from .target import engine_length

# Tokens of a run that checks drafts. An MTP layer's second draft, made of its first, is rarely right: docs/speculation.md.
_CHECKED_WITH_MTP, _CHECKED = 2, 4


def compile_engine(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    """See `Target.compile`."""
    with stage("export") as clock:
        check_weights(checkpoint.config, checkpoint.weights)
        _, cfg = settled_config(checkpoint.config, checkpoint.weights.keys())
        length = engine_length(plan, own_length(checkpoint.config, cfg.rope.longest))
        bundle = export(checkpoint, max_length=length, with_mtp=plan.speculation == "on")
        for remark in bundle.remarks:
            clock.show.say(f"{'export':<10} {remark}")
        speculates = _speculates(plan, bundle)
    with stage("quantize") as clock:
        precision = find_precision(plan.precision)
        quantized = quantize_calibrated(
            bundle, checkpoint, precision, plan.rounding, folder, clock.count, clock.show.say, plan.calibration
        )
    with stage("lower"):
        bundle = lowering.lower(quantized.bundle)
        if precision.stored:
            bundle = stored.store(bundle, precision.stored)
    with stage("write") as clock:
        written = onnx_files.write(bundle, folder, clock.count, changes=quantized.changes)
        speculation = _write_speculation(bundle, folder, quantized.changes, written) if speculates else None
        onnx_files.tell_links(written, clock)
        forget(folder)
    return EngineFacts(
        architecture=bundle.architecture,
        vocab_size=bundle.vocab_size,
        cache=bundle.cache,
        changes=tuple(map(record, quantized.changes)),
        files=tuple(written.files),
        engine=onnx_files.MODEL,
        loaded_bytes=written.loaded,
        speculation=speculation,
        plan={HEADS: cfg.num_attention_heads},
    )


def _speculates(plan: BuildPlan, bundle: GraphBundle) -> bool:
    """Whether the engine is to check drafts.

    Raises:
        BuildError: it is, but cannot.
    """
    windowed = any(c.window is not None for c in bundle.cache)
    if windowed and plan.speculation == "on":
        raise BuildError(
            f"drafts cannot be checked where layers have a window; {plan.model} has", f"choose {option('speculation', 'off')}"
        )
    return plan.speculation == "on"


def _write_speculation(
    bundle: GraphBundle, folder: Path, changes: Sequence[Change], written: onnx_files.Written
) -> Speculation:
    """Write what checks drafts and what makes them beside the engine; `written` grows by their files and weights."""
    tokens = _CHECKED if bundle.mtp is None else _CHECKED_WITH_MTP
    drafts.write_checking(folder / onnx_files.MODEL, folder / onnx_files.CHECKING, tokens)
    written.files.append(onnx_files.CHECKING)
    written.loaded *= 2
    mtp = None
    if bundle.mtp is not None:
        more = onnx_files.write(bundle.mtp, folder, changes=changes, name=onnx_files.MTP, beside=onnx_files.MODEL)
        written.files += [name for name in more.files if name not in written.files]
        written.loaded += more.loaded
        hidden = next(value for value in bundle.mtp.model.graph.inputs if value.name == "hidden")
        assert hidden.shape is not None and isinstance(hidden.shape[2], int), "hidden states have a size"
        mtp = MtpEngine(engine=onnx_files.MTP, hidden_size=hidden.shape[2], cache=bundle.mtp.cache)
    return Speculation(engine=onnx_files.CHECKING, tokens=tokens, mtp=mtp)
