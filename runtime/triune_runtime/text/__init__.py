"""Text in and out: tokenizer, chat template, and the exact cutting of a token stream into text."""
