"""Load on the server, the bare runtime and its peers, side by side in one run. See docs/benchmarks.md."""
