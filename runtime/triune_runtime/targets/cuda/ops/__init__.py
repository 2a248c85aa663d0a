"""Ops of Triune's own for ONNX Runtime on CUDA: kernels, the library that registers them, and how both are made."""
