"""The precisions of TensorRT engines: a row each, with all that is to be said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import BuildError, option
from ...quantize.policy import FLOAT, HEAD, Precision
from ...verify.budget import Budget
from ..gpu_proofs import ENGINE_BUDGET, FULL, NETWORK, NETWORK_BUDGET, ROUGH_NETWORK_BUDGET, half_precision
from .gpus import FP8_CAPABILITIES, FROM_AMPERE


@dataclass(frozen=True, kw_only=True)
class TrtPrecision:
    """One row. How weights are kept; arithmetic and cache are in `dtype`, whatever the weights are."""

    dtype: str  # float16 or bfloat16
    weights: Precision
    capabilities: tuple[str, ...]  # GPUs that take it; the first is the least
    network: Budget  # of the network computed in NumPy with every value rounded as declared
    engine: Budget  # of the engine run on a GPU

    @property
    def budgets(self) -> Mapping[str, Budget]:
        return {FULL: self.engine, NETWORK: self.network}


_ROUGH_ENGINE = dataclasses.replace(ENGINE_BUDGET, tie=0.02)

PRECISIONS = {
    row.weights.name: row
    for row in (
        TrtPrecision(
            dtype="float16",
            weights=half_precision("fp16", ("*", FLOAT)),
            capabilities=("7.5", *FROM_AMPERE),
            network=NETWORK_BUDGET,
            engine=ENGINE_BUDGET,
        ),
        TrtPrecision(
            dtype="bfloat16",
            weights=half_precision("bf16", ("*", FLOAT)),
            capabilities=FROM_AMPERE,
            network=dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.01, greedy_agreement=0.93, perplexity_ratio=1.02),
            engine=dataclasses.replace(_ROUGH_ENGINE, greedy_agreement=0.93, perplexity_ratio=1.02),
        ),
        TrtPrecision(
            dtype="float16",
            weights=half_precision("int8", ("*", "blocks8_symmetric")),
            capabilities=FROM_AMPERE,
            network=dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.01, greedy_agreement=0.93, perplexity_ratio=1.02),
            engine=dataclasses.replace(_ROUGH_ENGINE, mean_kl=0.03, greedy_agreement=0.93, perplexity_ratio=1.03),
        ),
        # The head decides every token: it keeps eight bits beside four, and halves beside FP8.
        TrtPrecision(
            dtype="float16",
            weights=half_precision("int4", (HEAD, "blocks8_symmetric"), ("*", "blocks4_symmetric")),
            capabilities=FROM_AMPERE,
            network=dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.1, greedy_agreement=0.85, perplexity_ratio=1.05),
            engine=dataclasses.replace(_ROUGH_ENGINE, mean_kl=0.1, greedy_agreement=0.85, perplexity_ratio=1.05),
        ),
        TrtPrecision(
            dtype="float16",
            weights=half_precision("fp8", (HEAD, FLOAT), ("*", "fp8")),
            capabilities=FP8_CAPABILITIES,
            network=dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.05, greedy_agreement=0.88, perplexity_ratio=1.08),
            engine=dataclasses.replace(_ROUGH_ENGINE, mean_kl=0.05, greedy_agreement=0.88, perplexity_ratio=1.08),
        ),
    )
}


def find_precision(name: str, compute_capabilities: Sequence[str]) -> TrtPrecision:
    """The precision of that name, if every GPU takes it.

    Raises:
        BuildError: no such precision for TensorRT, or a GPU that lacks it; with no GPU named, one that some lack.
    """
    if name not in PRECISIONS:
        raise BuildError(
            f"TensorRT engines have no precision {name!r}; known: {', '.join(PRECISIONS)}",
            f"choose {option('precision', 'fp16')}",
        )
    precision = PRECISIONS[name]
    for capability in compute_capabilities:
        if capability not in precision.capabilities:
            raise BuildError(
                f"a GPU of compute capability {capability} has no {name}; it takes {', '.join(_taken(capability))}, "
                f"and {name} needs one of {', '.join(sorted(precision.capabilities, key=float))}",
                f"choose {option('precision', _taken(capability)[0])}",
            )
    if not compute_capabilities and "8.0" not in precision.capabilities:
        raise BuildError(
            f"{name} does not run on every GPU from compute capability 8.0 on, for which an engine is built if none is named",
            f"name them, e.g. {option('compute_capability', precision.capabilities[0])}",
        )
    return precision


def _taken(capability: str) -> list[str]:
    return [name for name, precision in PRECISIONS.items() if capability in precision.capabilities]
