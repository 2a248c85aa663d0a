"""Proof that an engine computes what its checkpoint says."""
