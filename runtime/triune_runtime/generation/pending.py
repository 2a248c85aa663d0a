"""What of one answer waits to be handed out. Knows tokens and cuts; no request, no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..request import Chunk, FinishReason, KvCounts, Times, TokenLogprob
from ..text.cut import NOTHING, Cut, merge

_SLOT = KvCounts()


@dataclass(slots=True)
class Pending:
    """What of an answer has not been handed out yet."""

    cut: Cut = NOTHING
    new_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    index: int = 0
    drafted: int = 0
    accepted: int = 0
    kv: KvCounts = _SLOT
    scores: tuple[TokenLogprob, ...] = ()  # of the prompt

    def add(self, cut: Cut | None) -> None:
        """Text that may be handed out from now on."""
        if cut is not None:
            self.cut = merge(self.cut, cut)

    def take(self, times: Times | None, finish_reason: FinishReason | None = None) -> Chunk:
        """All that is pending, as the next chunk."""
        drafts = (self.drafted, self.accepted) if finish_reason else (0, 0)
        logprobs = tuple(self.logprobs)
        chunk = Chunk(self.index, self.cut, self.new_tokens, finish_reason, logprobs, times, *drafts, self.kv, self.scores)
        self.scores = ()
        self.cut, self.new_tokens, self.logprobs, self.index = NOTHING, 0, [], self.index + 1
        return chunk
