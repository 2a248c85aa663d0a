"""TensorRT, or TensorRT-RTX where that has the GPU."""
