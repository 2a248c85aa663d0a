"""The target "vllm": checkpoints that vLLM runs, split over devices as is asked for. Needs neither vLLM nor a GPU to build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..target import Flag, Proof, StageFactory, Target, VerifyJob
from .asked import check_numbers, found_here
from .precisions import PRECISIONS, sizes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triune_runtime.manifest import CacheTensor

    from ...checkpoint import Checkpoint
    from ...plan import BuildPlan
    from ...verify.verification import Verification
    from ..facts import EngineFacts

_LONGEST_UNASKED = 32_768  # tokens
_UNPROVED = "vLLM runs the checkpoint's own weights, and a build does not run vLLM"


def _check(plan: BuildPlan) -> None:
    check_numbers(plan.options)


def _choices(plan: BuildPlan) -> Sequence[object]:
    return [sorted(plan.options.items()), plan.limits.max_sequences]


def _check_checkpoint(plan: BuildPlan, checkpoint: Checkpoint) -> None:
    from .checking import check
    from .planned import choose

    check(plan, checkpoint)
    choose(plan, checkpoint.config, checkpoint.weights.keys())  # raises


def _cache(plan: BuildPlan, cache: tuple[CacheTensor, ...]) -> tuple[CacheTensor, ...]:
    from .checking import kept_cache

    return kept_cache(cache, plan.precision)


def _compile(plan: BuildPlan, checkpoint: Checkpoint, folder: Path, stage: StageFactory) -> EngineFacts:
    from .compiling import compile_engine

    return compile_engine(plan, checkpoint, folder, stage)


def _proof(job: VerifyJob) -> Proof:
    raise AssertionError("a target that proves nothing is not asked for a proof")


def _verify(job: VerifyJob, proof: Proof) -> Verification:
    raise AssertionError("a target that proves nothing is not asked for a proof")


TARGET = Target(
    name="vllm",
    precisions=PRECISIONS,
    default_precision="bf16",
    float_twin="fp32",
    proofs=(),
    proofs_help="vLLM: none.",
    unproved=_UNPROVED,
    flags=(
        Flag(name="tensor_parallel", kind=int, help="vLLM: devices that share each layer."),
        Flag(name="pipeline_parallel", kind=int, help="vLLM: groups of layers, each on devices of its own."),
        Flag(name="data_parallel", kind=int, help="vLLM: copies of all that."),
        Flag(name="expert_parallel", kind=bool, help="vLLM: devices hold whole experts."),
        Flag(name="nodes", kind=int, help="vLLM: machines that the devices are in."),
        Flag(name="gpu", kind=str, help="vLLM: which GPU, as `triune plan` knows it; by default this machine's."),
        Flag(name="gpus", kind=int, help="vLLM: how many, over all machines; the split that is not said is chosen for them."),
        Flag(name="micro_batch_size", kind=int, stands_for="max_sequences", help="Another name of --max-sequences."),
    ),
    longest_unasked=_LONGEST_UNASKED,
    serves_here=True,
    chunks_per_s=4000.0,
    code=("vllm",),
    further_code=("planning",),
    runtime_code=("vllm",),
    found_here=found_here,
    check=_check,
    check_checkpoint=_check_checkpoint,
    engine_choices=_choices,
    cache=_cache,
    compile=_compile,
    proof=_proof,
    verify=_verify,
    estimate=sizes,
)
