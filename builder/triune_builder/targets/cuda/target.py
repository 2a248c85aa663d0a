"""The target "cuda": engines for ONNX Runtime on an NVIDIA GPU. No GPU is needed to build one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triune_runtime.machine import this_machine
from triune_runtime.targets import check_runnable
from triune_runtime.targets import find_target as find_runtime_target

from ..gpu_proofs import FULL, NETWORK, choose_proof
from ..target import Proof, StageFactory, Target, VerifyJob
from .kernels import HEAD_MOST, HEAD_UNIT, ROTARY_UNIT
from .precisions import PRECISIONS, find_precision, sizes

if TYPE_CHECKING:
    from pathlib import Path

    from triune_runtime.manifest import CacheTensor

    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan
    from ...verify.verification import Verification
    from ..facts import EngineFacts

_LONGEST_UNASKED = 32_768  # tokens: sequences share their memory, so that a long one takes nothing until it is long


def _check(plan: BuildPlan) -> None:
    """Nothing that the plan's choices among this target's would not have said."""
    find_precision(plan.precision)


def engine_length(plan: BuildPlan, own: int | None) -> int:
    """Only a small table depends on it, so other limits need no other engine."""
    return max(plan.limits.max_length, min(own or 0, _LONGEST_UNASKED))


def _cache(plan: BuildPlan, cache: tuple[CacheTensor, ...]) -> tuple[CacheTensor, ...]:
    from .lowering import kept_cache

    return kept_cache(cache, find_precision(plan.precision).cache)


def _compile(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    from .compiling import compile_engine

    return compile_engine(plan, checkpoint, folder, stage)


def _proof(job: VerifyJob) -> Proof:
    def find_gpu() -> str:
        check_runnable(job.manifest, job.folder)
        return find_runtime_target(job.manifest.target).device(this_machine())

    return choose_proof(job, find_gpu, "the engine's graph")


def _verify(job: VerifyJob, proof: Proof) -> Verification:
    if proof.how == NETWORK:
        from .compiling import verify_graph

        return verify_graph(job.manifest, job.folder, job.checkpoint, job.note)
    from ...verify.verify import verify_engine

    return verify_engine(job.manifest, job.folder, job.checkpoint, sizes=job.sizes, note=job.note)


TARGET = Target(
    name="cuda",
    precisions=PRECISIONS,
    default_precision="bf16",
    float_twin="fp16",
    proofs=(FULL, NETWORK),
    proofs_help="CUDA: the same.",
    head_unit=HEAD_UNIT,
    head_most=HEAD_MOST,
    latent_unit=HEAD_UNIT,
    rotary_unit=ROTARY_UNIT,
    longest_unasked=_LONGEST_UNASKED,
    chunks_per_s=4000.0,  # the device computes meanwhile, and a stream of 40 tokens/s is worth a piece for each
    code=("cuda",),
    runtime_code=("device", "cuda"),
    check=_check,
    engine_length=engine_length,
    cache=_cache,
    compile=_compile,
    proof=_proof,
    verify=_verify,
    estimate=sizes,
)
