"""Builds for ONNX Runtime on a CPU."""
