"""Where weights, tokenizer and configuration come from: every source ends in one `Checkpoint`."""

from .checkpoint import Checkpoint
from .source import open_checkpoint
from .tensor import Blocks, Tensor

__all__ = ["Blocks", "Checkpoint", "Tensor", "open_checkpoint"]
