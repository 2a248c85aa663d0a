"""Token counts of an answer with all its choices, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from triune_client import Chunk


class Counts:
    """Adds up what the server counts. It counts a prompt that several choices answer once, as OpenAI does."""

    def __init__(self) -> None:
        self.prompt = self.cached = self.completion = self.reasoning = 0

    def take(self, chunk: Chunk) -> None:
        """A piece of any choice."""
        self.prompt += chunk.usage.input_tokens
        self.cached += chunk.usage.cached_tokens
        self.completion += chunk.usage.output_tokens
        self.reasoning += chunk.usage.reasoning_tokens

    def shape(self) -> dict[str, Any]:
        """The `usage` object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
