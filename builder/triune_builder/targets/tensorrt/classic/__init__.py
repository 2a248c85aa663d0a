"""Engines for TensorRT 8.6 to 10: opset 16, weights and cache as inputs that are bound by address, fixed sizes of runs."""
