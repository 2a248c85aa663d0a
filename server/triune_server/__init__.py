"""The embedded Triton server: finds its binaries, starts it, watches it, stops it. Knows no model and no tensor."""

__version__ = "0.1.0"
