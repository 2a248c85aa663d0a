"""One decode step of a dense model as one launch on the GPU, for few sequences. Knows no graph: addresses and sizes only."""
