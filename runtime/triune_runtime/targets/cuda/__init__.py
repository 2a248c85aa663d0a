"""ONNX Runtime on an NVIDIA GPU, with the KV cache in blocks."""
