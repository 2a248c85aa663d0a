"""Makes the environments that the Makefile's verbs need. The standard library alone: it runs before anything is installed."""
