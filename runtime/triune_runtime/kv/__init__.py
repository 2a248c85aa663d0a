"""Who holds which part of the KV memory. Integers only; the runner owns the bytes."""
