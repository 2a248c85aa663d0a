"""How fast engines for CUDA are on a GPU, beside vLLM if it is installed."""
