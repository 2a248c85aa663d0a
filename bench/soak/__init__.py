"""A mixed load for an hour: what grows, what slows down, who is answered wrongly. `python -m bench.soak --help`."""
