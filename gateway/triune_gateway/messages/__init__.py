"""Anthropic's Messages API: requests and answers in its shapes."""
