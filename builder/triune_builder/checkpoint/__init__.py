"""Where weights, tokenizer and configuration come from: every source ends in one `Checkpoint`."""

from .checkpoint import Checkpoint
from .fp8 import Fp8Tensor
from .source import open_checkpoint
from .tensor import Blocks, Tensor

__all__ = ["Blocks", "Checkpoint", "Fp8Tensor", "Tensor", "open_checkpoint"]
