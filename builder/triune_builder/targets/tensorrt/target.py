"""The target "tensorrt": engines for TensorRT, or for TensorRT-RTX where that has the GPU. No GPU is needed to build one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from triune_runtime.targets.tensorrt import preflight
from triune_runtime.targets.tensorrt.plan import TensorRtPlan

from ..gpu_proofs import FULL, NETWORK, choose_proof
from ..target import Proof, StageFactory, Target, VerifyJob
from . import gpus
from .gpus import HEAD_UNIT
from .options import FLAGS, TensorRtOptions
from .precisions import PRECISIONS, find_precision

if TYPE_CHECKING:
    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan
    from ...verify.verification import Verification
    from ..facts import EngineFacts


def _check(plan: BuildPlan) -> None:
    capabilities = TensorRtOptions.of(plan).compute_capabilities
    gpus.flavour(capabilities)
    find_precision(plan.precision, capabilities)


def _engine_choices(plan: BuildPlan) -> Sequence[object]:
    """What an engine's profiles and its GPUs are."""
    options = TensorRtOptions.of(plan)
    limits, capabilities = plan.limits, options.compute_capabilities
    of_the_engine = limits.max_sequences, limits.prefill_chunk, capabilities, options.weight_streaming
    return *of_the_engine, gpus.classic_version(capabilities)


def _compile(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    from .compiling import compile_engine

    return compile_engine(plan, checkpoint, folder, stage)


def _proof(job: VerifyJob) -> Proof:
    def find_gpu() -> str:
        return str(preflight.check_machine(job.manifest.engine, TensorRtPlan.of(job.manifest)))

    return choose_proof(job, find_gpu, "the parsed network")


def _verify(job: VerifyJob, proof: Proof) -> Verification:
    if proof.how == NETWORK:
        from .compiling import verify_parsed

        return verify_parsed(job.manifest, job.folder, job.checkpoint, job.note)
    from ...verify.verify import verify_engine

    found = verify_engine(job.manifest, job.folder, job.checkpoint, sizes=job.sizes, note=job.note)
    if not TensorRtPlan.of(job.manifest).fixed_sizes:
        return found
    from ...verify.texts import evaluation_ids, texts_of
    from .classic.proof import sizes_error

    job.note("the engines of all sizes")
    texts = evaluation_ids(job.checkpoint.tokenizer_json, texts_of(job.checkpoint.verification))
    error = sizes_error(job.manifest, job.folder, [token for _, text in texts for token in text])
    median = None if found.batch_median is None else max(error, found.batch_median)
    return dataclasses.replace(found, batch_error=max(error, found.batch_error or 0.0), batch_median=median)


TARGET = Target(
    name="tensorrt",
    precisions=PRECISIONS,
    default_precision="fp16",
    float_twin="fp16",
    proofs=(FULL, NETWORK),
    proofs_help="TensorRT: full where the engine's GPU is, else network: as parsed.",
    flags=FLAGS,
    head_unit=HEAD_UNIT,
    latent_unit=HEAD_UNIT,
    tools=("tensorrt", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"),
    chunks_per_s=4000.0,  # the device computes meanwhile, and a stream of 40 tokens/s is worth a piece for each
    code=("tensorrt",),
    runtime_code=("device", "tensorrt"),
    check=_check,
    engine_choices=_engine_choices,
    compile=_compile,
    proof=_proof,
    verify=_verify,
)
