"""Faults on purpose against a real server on this machine, and what became of everybody. `python -m bench.chaos --help`."""
