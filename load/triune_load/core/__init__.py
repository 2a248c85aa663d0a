"""What a load test decides and computes: arrivals, requests, checks, figures. Plain values: no socket, no clock, no file."""
