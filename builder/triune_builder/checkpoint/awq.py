"""AWQ checkpoints, as AutoAWQ packs them for its product `gemm`. Reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import quoted
from .fp8_config import refusal
from .grouped import GroupedTensor, group_size, grouped
from .packed_integers import PackedIntegers
from .qweights import join_qweights
from .tensor import Tensor

_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # a word holds its eight rows in this order: even ones first


def join_awq(weights: Mapping[str, Tensor], raw: Mapping[str, Any]) -> tuple[dict[str, Tensor], None]:
    """Every packed matrix with its scales and zeros as one tensor.

    Raises:
        BuildError: packed in another way, or parts are missing or misshapen.
    """
    wanted = {"bits": (4, None), "w_bit": (4, None), "version": ("gemm", "GEMM", None), "zero_point": (True, None)}
    strange = [f"{key} = {quoted(raw.get(key))} (only {values[0]!r} is read)"
               for key, values in wanted.items() if raw.get(key) not in values]  # fmt: skip
    if strange:
        raise refusal(strange)
    return join_qweights(weights, _tensor), None


def _tensor(name: str, qweight: Tensor, qzeros: Tensor, scales: Tensor, group_of: Tensor | None) -> GroupedTensor:
    """Codes [columns, rows / 8], zeros [groups, rows / 8], scales [groups, rows]."""
    columns, rows, count = qweight.shape[0], 8 * qweight.shape[1], qzeros.shape[0]
    codes, zeros = (
        PackedIntegers(tensor=packed, rows=rows, columns=size, bits=4, axis=1, transposed=True, order=_ORDER)
        for packed, size in ((qweight, columns), (qzeros, count))
    )
    return grouped(name, codes, scales, zeros, scale_transposed=True, group=group_size(columns, count, None), group_of=group_of)
