"""Logits to tokens: rows of requests, the columns of a step, chance, and the choice on the host."""
