"""TensorRT Model Optimizer's INT4 weights, as it exports them in Hugging Face's layout. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import BuildError, quoted
from .fp8_config import MODELOPT_FP8, OF_ACTIVATIONS, refusal
from .grouped import INCOMPLETE, GroupedTensor, group_size, grouped
from .packed_integers import PackedIntegers
from .tensor import FP8, Tensor

_INT4 = ("W4A16_AWQ", "INT4_AWQ")


def join_modelopt(weights: Mapping[str, Tensor], raw: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Every packed matrix with its scales, and what its inputs are multiplied with, as one tensor; FP8 ones are left.

    Raises:
        BuildError: quantized in a way that is not read, or parts are missing or misshapen.
    """
    layers: Any = raw.get("quantized_layers")
    mixed = raw.get("quant_algo") == "MIXED_PRECISION" and isinstance(layers, dict)
    said = [layer.get("quant_algo") if isinstance(layer, dict) else layer for layer in layers.values()] if mixed else []
    known = (*MODELOPT_FP8, *_INT4)
    strange = [algo for algo in said or [raw.get("quant_algo")] if not isinstance(algo, str) or algo not in known]
    if strange:
        raise refusal([f"quant_algo = {quoted(strange[0])} (read are {', '.join(map(repr, known))})"])
    joined = {name: tensor for name, tensor in weights.items() if not name.endswith(OF_ACTIVATIONS)}
    for name, tensor in weights.items():
        if tensor.dtype == "U8" and name.endswith(".weight"):
            module = name.removesuffix(".weight")
            scale, factors = joined.pop(f"{name}_scale", None), joined.pop(f"{module}.pre_quant_scale", None)
            joined[name] = _tensor(tensor, scale, factors, raw.get("group_size"))
    eight = any(tensor.dtype == FP8 for tensor in joined.values())
    return joined, {**raw, "quant_algo": MODELOPT_FP8[0]} if eight else None


def _tensor(packed: Tensor, scale: Tensor | None, factors: Tensor | None, said: Any) -> GroupedTensor:
    """Two's complement [rows / 2, columns], the even row in the lower half; scales [rows, groups]; factors of inputs."""
    if scale is None or len(scale.shape) != 2 or len(packed.shape) != 2 or not packed.size or not scale.size:
        found = "nothing" if scale is None else f"{scale.dtype} {list(scale.shape)}"
        raise BuildError(f"{packed.name} is U8 {list(packed.shape)} and has {found} for its scales", INCOMPLETE)
    rows, columns = 2 * packed.shape[0], packed.shape[1]
    codes = PackedIntegers(tensor=packed, rows=rows, columns=columns, bits=4, axis=0, signed=True)
    return grouped(packed.name, codes, scale, 0, group=group_size(columns, scale.shape[1], said), factors=factors)
