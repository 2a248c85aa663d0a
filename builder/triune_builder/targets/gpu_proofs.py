"""What targets share whose engines compute in halves on a GPU: how one is proved, and how far it may be from its checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from triune_runtime.errors import ManifestError

from ..errors import BuildError, option
from ..quantize.policy import ROUTERS, Precision
from ..verify.budget import Budget
from .target import Proof, VerifyJob

FULL, NETWORK = "full", "network"  # the engine run on the GPU that is here; or its graph computed in NumPy

# The order of sums is the only freedom of a graph that is computed as it says.
NETWORK_BUDGET = Budget(
    logits_error=0.03, mean_kl=1e-3, greedy_agreement=0.97, tie=0.01, perplexity_ratio=1.01, chunk_error=0.03, batch_error=0.03
)
ROUGH_NETWORK_BUDGET = dataclasses.replace(NETWORK_BUDGET, logits_error=None, tie=0.02, chunk_error=0.2, batch_error=0.2)
# A GPU computes in halves, and sums in an order that depends on the shape of a run.
ENGINE_BUDGET = Budget(mean_kl=0.01, greedy_agreement=0.97, tie=0.01, perplexity_ratio=1.01, batch_error=0.05)


def half_precision(name: str, *linear: tuple[str, str]) -> Precision:
    """The rules of a precision whose scales are halves; routers are never quantized.

    Args:
        linear: see `Precision`.
    """
    return Precision(name=name, linear=(ROUTERS, *linear), scale_bytes=2)


def choose_proof(job: VerifyJob, find_gpu: Callable[[], str], instead: str) -> Proof:
    """As asked, or by running the engine if this machine can.

    Args:
        find_gpu: what runs it here; raises ManifestError if nothing does.
        instead: what is computed otherwise, for people.

    Raises:
        BuildError: it is to be run, and cannot be.
    """
    if job.asked == NETWORK:
        return Proof(how=NETWORK)
    try:
        return Proof(how=FULL, device=find_gpu())
    except ManifestError as error:
        if job.asked == FULL:
            raise BuildError(
                f"--verify {FULL} runs the engine, which this machine cannot: {error.args[0]}",
                f"choose {option('verify', NETWORK)}, or auto: {instead} is computed then",
            ) from error
        return Proof(how=NETWORK)
