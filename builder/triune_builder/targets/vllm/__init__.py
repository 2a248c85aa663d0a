"""Engines that vLLM runs: a checked checkpoint, and how it is to be split and kept."""
