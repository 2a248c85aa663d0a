"""Modules whose tensors AutoGPTQ and AutoAWQ name alike: words of codes and of zeros, and scales. Reads no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import BuildError
from .grouped import INCOMPLETE, GroupedTensor
from .tensor import Tensor

_PARTS = ("qweight", "qzeros", "scales")
Make = Callable[[str, Tensor, Tensor, Tensor, Tensor | None], GroupedTensor]  # of a name, those parts, and each column's group


def join_qweights(weights: Mapping[str, Tensor], make: Make, *, groups: str | None = None) -> dict[str, Tensor]:
    """The weights, with one tensor for the parts of each packed matrix.

    Args:
        groups: what the tensor is called that holds the group of each column, where there may be one.

    Raises:
        BuildError: parts are missing, or of another type than words.
    """
    joined = dict(weights)
    for name in weights:
        if not name.endswith(".qweight"):
            continue
        module = name.removesuffix(".qweight")
        qweight, qzeros, scales = (joined.pop(f"{module}.{part}", None) for part in _PARTS)
        if qweight is None or qzeros is None or scales is None:
            raise BuildError(f"{name} has no {module}.{'scales' if scales is None else 'qzeros'} beside it", INCOMPLETE)
        for tensor in (qweight, qzeros):
            if tensor.dtype != "I32" or len(tensor.shape) != 2 or not tensor.size:
                what = f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}"
                raise BuildError(f"{what}; a matrix of I32 was expected", INCOMPLETE)
        group_of = joined.pop(f"{module}.{groups}", None) if groups else None
        joined[f"{module}.weight"] = make(f"{module}.weight", qweight, qzeros, scales, group_of)
    return joined
