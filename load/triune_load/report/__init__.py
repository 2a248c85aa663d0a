"""A result for people and for machines: terminal, HTML, JUnit. Results in, text out."""
