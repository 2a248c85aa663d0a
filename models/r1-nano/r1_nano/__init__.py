"""r1-nano: a small reasoning model of R1's architecture; its data, training, export and measurement."""
