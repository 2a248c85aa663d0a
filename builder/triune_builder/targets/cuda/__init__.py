"""Builds for ONNX Runtime on a GPU. No GPU is needed."""
