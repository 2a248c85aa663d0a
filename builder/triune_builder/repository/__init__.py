"""The Triton model repository: put together in one rename, checked without Triton."""
