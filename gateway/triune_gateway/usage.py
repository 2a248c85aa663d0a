"""Token counts of an answer with all its choices, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

from triune_client import Chunk


class Counts:
    """Adds up what the server counts. A prompt that several choices answer counts once, as at OpenAI."""

    def __init__(self, choices_per_prompt: int) -> None:
        self._choices_per_prompt = choices_per_prompt
        self.prompt = self.completion = self.reasoning = 0

    def take(self, index: int, chunk: Chunk) -> None:
        """A piece of choice `index`."""
        if index % self._choices_per_prompt == 0:
            self.prompt += chunk.usage.input_tokens
        self.completion += chunk.usage.output_tokens
        self.reasoning += chunk.usage.reasoning_tokens

    def shape(self) -> dict[str, Any]:
        """The `usage` object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }
