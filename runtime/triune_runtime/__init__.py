"""The generation runtime: continuous batching, sampling and exact text streaming over an engine. Knows no Triton."""

__version__ = "0.1.0"
