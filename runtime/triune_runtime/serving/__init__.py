"""What the Triton models do, as plain classes over NumPy arrays. Knows Triton's conventions, imports nothing of Triton."""
