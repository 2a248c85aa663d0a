"""Hostile checkpoints: small sound ones, damaged by chance, and what the build must make of each. See docs/fuzzing.md.

A case is a number: with the seed it decides everything. Run one, or many: python -m support.hostile --help
"""
