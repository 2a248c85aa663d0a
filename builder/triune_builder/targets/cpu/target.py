"""The target "cpu": engines for ONNX Runtime on a CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ..target import Proof, StageFactory, Target, VerifyJob
from .kernels import HEAD_UNIT, LATENT_UNIT
from .precisions import FULL, LAYERS, PRECISIONS, sizes

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan
    from ...verify.verification import Verification
    from ..facts import EngineFacts

_LONGEST_UNASKED = 32_768  # tokens: buffers of a run grow with the length, too
_ASIDE = 1 << 30  # bytes of memory for activations and the build itself


def _check(plan: BuildPlan) -> None:
    """Nothing that the plan's choices among this target's would not have said."""


def engine_length(plan: BuildPlan, own: int | None) -> int:
    """Only a small table depends on it, so other limits need no other engine."""
    return max(plan.limits.max_length, min(own or 0, _LONGEST_UNASKED))


def _compile(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    from .compiling import compile_engine

    return compile_engine(plan, checkpoint, folder, stage)


def _proof(job: VerifyJob) -> Proof:
    """As asked, or as a whole if the engine fits in the memory that is free now."""
    if job.asked in (FULL, LAYERS):
        return Proof(how=job.asked)
    slots = job.manifest.limits.max_sequences * job.manifest.kv_bytes(job.sizes.window)
    reference = 2 * 4 * max((math.prod(t.shape) for t in job.checkpoint.weights.values()), default=0)
    needed = job.loaded_bytes + slots + reference + _ASIDE
    return Proof(how=FULL if needed < psutil.virtual_memory().available else LAYERS)


def _verify(job: VerifyJob, proof: Proof) -> Verification:
    if proof.how == LAYERS:
        from ...verify.layers import verify_layers
        from .pieces import OrtPieces

        pieces = OrtPieces(job.folder / job.manifest.engine, job.manifest.cache)
        return verify_layers(pieces, job.manifest.limits, job.checkpoint, sizes=job.sizes, note=job.note)
    from ...verify.verify import verify_engine

    return verify_engine(job.manifest, job.folder, job.checkpoint, sizes=job.sizes, note=job.note)


TARGET = Target(
    name="cpu",
    precisions=PRECISIONS,
    default_precision="w8a8",
    float_twin="fp32",
    proofs=(FULL, LAYERS),
    proofs_help="Layers: a few weights at a time; auto: full where memory takes the engine, else layers.",
    speculations=("off", "on"),
    tools=("onnxruntime",),
    head_unit=HEAD_UNIT,
    latent_unit=LATENT_UNIT,
    longest_unasked=_LONGEST_UNASKED,
    serves_here=True,
    engine_length=engine_length,
    code=("cpu",),
    runtime_code=("cpu",),
    check=_check,
    compile=_compile,
    proof=_proof,
    verify=_verify,
    estimate=sizes,
)
