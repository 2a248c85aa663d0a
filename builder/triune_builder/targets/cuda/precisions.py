"""The precisions of CUDA engines: a row each, with all that is to be said of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import BuildError, option
from ...quantize.policy import FLOAT, HEAD, Precision
from ...verify.budget import Budget
from ..gpu_proofs import ENGINE_BUDGET, FULL, NETWORK, NETWORK_BUDGET, ROUGH_NETWORK_BUDGET, half_precision
from ..sizes import Kind, PrecisionSize, Weight, scheme_of

_STORED = {"float16": "F16", "bfloat16": "BF16"}
_FP8 = "float8_e4m3fn"
_FUSED = tuple(f".self_attn.{name}.weight" for name in "q_proj k_proj v_proj q_a_proj kv_a_proj_with_mqa".split())  # in one


@dataclass(frozen=True, kw_only=True)
class CudaPrecision:
    """One row. How weights are kept; arithmetic is in `dtype`, whatever they are."""

    dtype: str  # float16 or bfloat16
    cache: str  # what keys and values are kept in: the same, or float8_e4m3fn
    weights: Precision
    network: Budget  # of the graph computed in NumPy with every value rounded as the engine rounds it
    engine: Budget  # of the engine run on a GPU

    @property
    def budgets(self) -> Mapping[str, Budget]:
        return {FULL: self.engine, NETWORK: self.network}

    def size(self, weights: Sequence[Weight], tied: bool, slots: int) -> PrecisionSize:
        """See `Target.estimate`, for this precision."""
        in_place = [w for w in weights if self._in_place(w)]
        written = sum(self.bytes_of(w.name, w.kind, w.shape) for w in weights if not self._in_place(w))
        if tied and scheme_of(self.weights, HEAD, "head") is not None:  # a product of its own
            written += sum(self.bytes_of(w.name, "head", w.shape) for w in weights if w.kind == "table")
        read = sum(w.nbytes for w in in_place)
        return PrecisionSize(written=written, in_place=read, loaded=written + read, serving=written + read + slots)

    def bytes_of(self, name: str, kind: Kind, shape: Sequence[int]) -> int:
        """What a build writes of a weight that is read as `kind`."""
        scheme = None if kind == "vector" else scheme_of(self.weights, name, kind)
        if scheme is None:
            return (4 if kind == "router" else 2) * math.prod(shape)
        rows, columns = shape
        return scheme.bytes(rows, columns, self.weights.scale_bytes)

    def _in_place(self, weight: Weight) -> bool:
        if weight.dtype != _STORED[self.dtype] or weight.kind in ("expert", "expanded", "router"):
            return False
        if weight.kind != "vector" and scheme_of(self.weights, weight.name, weight.kind) is not None:
            return False
        return not weight.name.endswith(_FUSED)


_ROUGH_ENGINE = dataclasses.replace(ENGINE_BUDGET, tie=0.02, batch_error=0.2)

_BF16 = dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.01, greedy_agreement=0.93, perplexity_ratio=1.02)
_BF16_ENGINE = dataclasses.replace(_ROUGH_ENGINE, greedy_agreement=0.93, perplexity_ratio=1.02)
_INT4 = dataclasses.replace(ROUGH_NETWORK_BUDGET, mean_kl=0.1, greedy_agreement=0.85, perplexity_ratio=1.05)
_INT4_ENGINE = dataclasses.replace(_ROUGH_ENGINE, mean_kl=0.1, greedy_agreement=0.85, perplexity_ratio=1.05)

# What most checkpoints are kept in, R1's own family among them: their weights are read where they lie, and none is too large.
_BFLOAT = CudaPrecision(
    dtype="bfloat16", cache="bfloat16", weights=half_precision("bf16", ("*", FLOAT)), network=_BF16, engine=_BF16_ENGINE
)
_FLOAT16 = CudaPrecision(
    dtype="float16", cache="float16", weights=half_precision("fp16", ("*", FLOAT)), network=NETWORK_BUDGET, engine=ENGINE_BUDGET
)
# The head decides every token: it keeps eight bits beside four.
_FOUR_BITS = CudaPrecision(
    dtype="float16",
    cache="float16",
    weights=half_precision("int4", (HEAD, "blocks8_symmetric"), ("*", "blocks4_symmetric")),
    network=_INT4,
    engine=_INT4_ENGINE,
)


def _in_eight_bits(row: CudaPrecision) -> CudaPrecision:
    """The same with keys and values in eight-bit floats, which are good to a sixteenth."""
    network, engine = (
        dataclasses.replace(
            budget,
            logits_error=None,
            mean_kl=(budget.mean_kl or 0) + 0.05,
            greedy_agreement=budget.greedy_agreement - 0.05,
            perplexity_ratio=budget.perplexity_ratio + 0.02,
            batch_error=0.2,
            chunk_error=None,  # a chunk reads what it wrote itself, rounded or not
        )
        for budget in (row.network, row.engine)
    )
    weights = dataclasses.replace(row.weights, name=f"{row.weights.name}-fp8kv")
    return dataclasses.replace(row, cache=_FP8, weights=weights, network=network, engine=engine)


_ROWS = (_BFLOAT, _FLOAT16, _FOUR_BITS)
PRECISIONS = {row.weights.name: row for row in (*_ROWS, *map(_in_eight_bits, _ROWS))}


def find_precision(name: str) -> CudaPrecision:
    """The precision of that name.

    Raises:
        BuildError: there is none.
    """
    if name not in PRECISIONS:
        raise BuildError(
            f"CUDA engines have no precision {name!r}; known: {', '.join(PRECISIONS)}", f"choose {option('precision', 'bf16')}"
        )
    return PRECISIONS[name]


def sizes(weights: Sequence[Weight], tied: bool, slots: int) -> dict[str, PrecisionSize]:
    """See `Target.estimate`."""
    return {name: row.size(weights, tied, slots) for name, row in PRECISIONS.items()}
