"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import BuildError, quoted
from .block_types import Codes
from .fp8_config import refusal
from .grouped import INCOMPLETE, GroupedTensor, group_size, grouped
from .packed_integers import PackedIntegers
from .qweights import join_qweights
from .tensor import Tensor

_BITS = (2, 4, 8)
_FORMATS = ("gptq", "gptq_v2")


@dataclass(frozen=True, kw_only=True)
class _MiddleZeros(PackedIntegers):
    """Zeros of a matrix that config.json calls symmetric: the middle code.

    Tools that keep one layout and name the other are known, and all their zeros are one off; vLLM's kernels for symmetric
    matrices do not look at zeros at all.
    """

    def read(self, band: slice) -> Codes:
        zeros, middle = super().read(band), 1 << (self.bits - 1)
        one_off = any(np.all(zeros == other) for other in (middle - 1, middle + 1))
        return np.full_like(zeros, middle) if one_off else zeros


def join_gptq(weights: Mapping[str, Tensor], raw: Mapping[str, Any]) -> tuple[dict[str, Tensor], None]:
    """Every packed matrix with its scales, zeros and the order of its columns as one tensor.

    Bits and group sizes may differ from matrix to matrix: the shapes tell them.

    Raises:
        BuildError: packed in another way, or parts are missing or misshapen.
    """
    layout = raw.get("checkpoint_format") or "gptq"
    strange = (
        [] if layout in _FORMATS else [f"checkpoint_format = {quoted(layout)} (read are {', '.join(map(repr, _FORMATS))})"]
    )
    if raw.get("is_marlin_format"):
        strange.append("is_marlin_format = True (not read)")
    if raw.get("pack_dtype") not in (None, "int32"):
        strange.append(f"pack_dtype = {quoted(raw['pack_dtype'])} (only 'int32' is read)")
    if strange:
        raise refusal(strange)
    return join_qweights(weights, partial(_tensor, raw=raw, is_first=layout == "gptq"), groups="g_idx"), None


def _tensor(
    name: str, qweight: Tensor, qzeros: Tensor, scales: Tensor, g_idx: Tensor | None, *, raw: Mapping[str, Any], is_first: bool
) -> GroupedTensor:
    """Codes [columns / per word, rows], zeros [groups, rows / per word], scales [groups, rows].

    Args:
        is_first: the first layout stores one less than the zero, in every place of a word at once.
    """
    rows = qweight.shape[1]
    bits, rest = divmod(32 * qzeros.shape[1], rows)
    if rest or bits not in _BITS:
        raise BuildError(
            f"{qzeros.name} {list(qzeros.shape)} is of {32 * qzeros.shape[1] / rows:g} bits for {rows} rows; read are "
            f"{', '.join(map(str, _BITS))}",
            "take the model's 4-bit or 8-bit GPTQ checkpoint, or another one",
        )
    said = raw.get("bits")
    if said != bits and not raw.get("dynamic"):
        raise BuildError(f"{name} is packed in {bits} bits, and config.json says bits = {quoted(said)}", INCOMPLETE)
    columns, count = qweight.shape[0] * 32 // bits, qzeros.shape[0]
    one = 0 if not is_first else sum(1 << shift for shift in range(0, 32, bits))
    zeros = _MiddleZeros if raw.get("sym") is True else PackedIntegers
    return grouped(
        name,
        PackedIntegers(tensor=qweight, rows=rows, columns=columns, bits=bits, axis=0, transposed=True),
        scales,
        zeros(tensor=qzeros, rows=rows, columns=count, bits=bits, axis=1, transposed=True, added=one),
        scale_transposed=True,
        group=group_size(columns, count, raw.get("group_size")),
        group_of=g_idx,
    )
