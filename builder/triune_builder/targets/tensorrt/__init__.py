"""Builds for TensorRT, or for TensorRT-RTX where that has the GPU. No GPU is needed."""
