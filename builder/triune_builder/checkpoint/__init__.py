"""Where weights, tokenizer and configuration come from: every source ends in one `Checkpoint`."""

from .checkpoint import Checkpoint
from .fp8 import Fp8Tensor
from .grouped import GroupedTensor
from .quantized_blocks import Blocks
from .source import open_checkpoint
from .tensor import Tensor

__all__ = ["Blocks", "Checkpoint", "Fp8Tensor", "GroupedTensor", "Tensor", "open_checkpoint"]
