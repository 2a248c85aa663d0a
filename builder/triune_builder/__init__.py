"""Checkpoint in, proved engine and Triton repository out."""

__version__ = "0.1.0"
