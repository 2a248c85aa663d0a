"""A checkpoint of random weights, written by a process of its own: what measures holds no PyTorch, and no GPU, in memory."""

from __future__ import annotations

import sys
from pathlib import Path


def checkpoint_command(shape: str, folder: Path) -> list[str]:
    """The command that writes the checkpoint of a name of `shapes.SHAPES` into `folder`; what is there stays.

    It is to be run in the root of the checkout.
    """
    return [sys.executable, "-c", f"from bench.gpu.shapes import *; write_checkpoint({shape!r}, Path({str(folder)!r}))"]
