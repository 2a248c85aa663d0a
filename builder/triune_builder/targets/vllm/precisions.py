"""The precisions of vLLM's engines: a row each. Weights are the checkpoint's, made what is said while they are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import BuildError, option
from ...quantize.policy import FLOAT, Precision
from ...verify.budget import Budget
from ..sizes import PrecisionSize, Weight

FP8 = "F8_E4M3"  # as safetensors name the type
STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_EIGHT_BITS = "float8_e4m3fn"
_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", _EIGHT_BITS: "fp8"}


@dataclass(frozen=True, kw_only=True)
class VllmPrecision:
    """One row."""

    dtype: str  # of the arithmetic, and of weights that are not quantized
    weights: Precision
    eight_bits: bool = False  # weights of linears are eight-bit floats: the checkpoint's own, or made while they are loaded
    cache: str  # what keys and values are kept in
    budgets: Mapping[str, Budget] = field(default_factory=dict)  # of no proof: a build runs nothing

    @property
    def planned(self) -> tuple[str, str]:
        """The planner's names of what weights, and keys and values, are kept in."""
        return "fp8" if self.eight_bits else _NAMES[self.dtype], _NAMES[self.cache]

    def size(self, weights: Sequence[Weight], slots: int) -> PrecisionSize:
        """See `Target.estimate`, for this precision. What no safetensors file holds is written, as blocks of GGUF files."""
        loaded = sum(self._bytes(weight) for weight in weights)
        read = sum(weight.nbytes for weight in weights if _plain(weight))
        written = sum(weight.size * _BYTES[self.dtype] for weight in weights if not _plain(weight))
        return PrecisionSize(written=written, in_place=read, loaded=loaded, serving=loaded + slots)

    def _bytes(self, weight: Weight) -> int:
        quantized = self.eight_bits and weight.kind in ("linear", "expert", "expanded")
        return weight.size * (1 if quantized else _BYTES[self.dtype])


def _plain(weight: Weight) -> bool:
    return weight.dtype in (*STORED.values(), FP8)


def _row(name: str, dtype: str, *, eight_bits: bool = False, cache: str | None = None) -> VllmPrecision:
    weights = Precision(name=name, linear=(("*", FLOAT),))
    return VllmPrecision(dtype=dtype, weights=weights, eight_bits=eight_bits, cache=cache or dtype)


PRECISIONS = {
    row.weights.name: row
    for row in (
        _row("bf16", "bfloat16"),
        _row("fp16", "float16"),
        _row("fp32", "float32"),
        _row("fp8", "bfloat16", eight_bits=True),
        _row("bf16-fp8kv", "bfloat16", cache=_EIGHT_BITS),
        _row("fp8-fp8kv", "bfloat16", eight_bits=True, cache=_EIGHT_BITS),
    )
}


def find_precision(weights: str, cache: str) -> str:
    """The precision whose weights, and keys and values, are kept in what the planner calls so.

    Raises:
        BuildError: there is none.
    """
    for name, row in PRECISIONS.items():
        if row.planned == (weights, cache):
            return name
    known = ", ".join(f"{w} with KV in {c}" for w, c in (row.planned for row in PRECISIONS.values()))
    raise BuildError(
        f"precision {weights} with KV in {cache}: vLLM's engines have {known}", f"choose e.g. {option('precision', 'bf16')}"
    )


def sizes(weights: Sequence[Weight], tied: bool, slots: int) -> dict[str, PrecisionSize]:
    """See `Target.estimate`."""
    return {name: row.size(weights, slots) for name, row in PRECISIONS.items()}
