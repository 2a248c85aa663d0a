"""What ONNX Runtime's kernels for CUDA ask of shapes, and which of its versions the graphs are written for."""

from __future__ import annotations

from collections.abc import Iterable

CONTRIB = "com.microsoft"
OPSET, IR_VERSION = 21, 10  # all that is used has a kernel on the GPU there: what falls back to the CPU cannot be recorded

HEAD_UNIT = 16  # numbers of a head that PagedAttention rotates are multiples of it
HEAD_MOST = 256  # of a head with keys and values of its own: flash attention has no wider ones
ROTARY_UNIT = 16  # numbers that are rotated: its tables have multiples of 8 columns

_NORMED_TOGETHER = 256  # numbers that GatedRMSNorm takes at once: small enough to spread one token over the GPU


def block_tokens(heads: Iterable[int]) -> int:
    """Tokens of a block of the cache, for heads of so many numbers: the fewest with which flash attention reads it in place."""
    return 256 if min(heads) <= 64 else 128


def group_size(columns: int) -> int:
    """Numbers of a row of `columns` that GatedRMSNorm takes together: the most that divide them."""
    return max(size for size in range(1, _NORMED_TOGETHER + 1) if columns % size == 0)
