"""The state of one request while it is served. Knows tokens and its slot; no scheduling, no text, no tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

from .request import Request


@dataclass(eq=False, slots=True)
class Sequence:
    """Prompt and answer of one request, and how much of it is in the KV cache."""

    request: Request
    max_tokens: int  # of the answer; resolved against the engine's length
    tokens: list[int] = field(init=False)
    computed: int = 0  # tokens whose KV is in the cache
    slot: int | None = None  # while it holds one

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def key(self) -> int:
        return self.request.key

    @property
    def pending(self) -> int:
        """Tokens that must be run before the next one can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.request.prompt)
