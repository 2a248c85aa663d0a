"""What ONNX Runtime's kernels for the CPU ask of shapes."""

from __future__ import annotations

HEAD_UNIT = 16  # numbers of a head that its attention rotates are multiples of it
LATENT_UNIT = 8  # numbers of a head that comes rotated
