"""Weights that a folder holds in another form than numbers: which tool wrote them, and its reader. Reads no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BuildError, quoted
from .awq import join_awq
from .bitsandbytes import join_bitsandbytes
from .compressed import join_compressed
from .fp8 import join_scales
from .fp8_config import FLOAT_METHODS, KEY, refusal
from .gptq import join_gptq
from .modelopt import join_modelopt
from .tensor import INTEGERS, PLAIN, Tensor

# What a reader gives: the weights with all that it reads joined, and what of the config is left for FP8 weights among them.
Reader = Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[dict[str, Tensor], dict[str, Any] | None]]
_READERS: dict[str, Reader] = {
    "gptq": join_gptq,
    "awq": join_awq,
    "compressed-tensors": join_compressed,
    "bitsandbytes": join_bitsandbytes,
    "modelopt": join_modelopt,
}
METHODS = tuple(dict.fromkeys([*FLOAT_METHODS, *_READERS]))


def join_stored(weights: Mapping[str, Tensor], config: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Every weight as one tensor of numbers, whatever lies in the files; the config without what it says of that.

    Raises:
        BuildError: the checkpoint is quantized in a way that is not read, or parts are missing or misshapen.
    """
    raw = config.get(KEY)
    if isinstance(raw, dict):
        method = raw.get("quant_method")
        if not isinstance(method, str) or method not in METHODS:
            known = ", ".join(repr(name) for name in METHODS)
            raise refusal([f"quant_method = {quoted(method)} (read are {known})"])
        if method in _READERS:
            weights, left = _READERS[method](weights, raw)
            config = config | {KEY: left}
    joined, config = join_scales(weights, config)
    strange = sorted({t.dtype for t in joined.values()} & INTEGERS.keys())
    if strange:
        first = next(t for t in joined.values() if t.dtype == strange[0])
        raise BuildError(
            f"{first.path} holds tensors of type {', '.join(strange)} (such as {first.name}); read are {', '.join(PLAIN)}"
            + ("" if raw else f", and config.json has no {KEY} that would say what these are"),
            "take the model's BF16, F16, F32 or block-FP8 checkpoint",
        )
    return joined, config
