"""What of one answer waits to be handed out. Knows tokens and cuts; no request, no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..request import Chunk, FinishReason, Times, TokenLogprob
from ..text.cutter import Cut, merge

NOTHING = Cut((), 0, 0)


@dataclass(slots=True)
class Pending:
    """What of an answer has not been handed out yet."""

    cut: Cut = NOTHING
    new_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    index: int = 0
    drafted: int = 0
    accepted: int = 0

    def add(self, cut: Cut | None) -> None:
        """Text that may be handed out from now on."""
        if cut is not None:
            self.cut = cut if self.cut is NOTHING else merge(self.cut, cut)

    def take(self, times: Times | None, finish_reason: FinishReason | None = None) -> Chunk:
        """All that is pending, as the next chunk."""
        chunk = Chunk(
            index=self.index,
            token_ids=self.cut.token_ids,
            byte_start=self.cut.byte_start,
            byte_stop=self.cut.byte_stop,
            new_tokens=self.new_tokens,
            finish_reason=finish_reason,
            stop_reason=self.cut.stop_reason,
            logprobs=tuple(self.logprobs),
            border=self.cut.border,
            reasoning_tokens=self.cut.reasoning_tokens,
            times=times,
            drafted=self.drafted if finish_reason else 0,
            accepted=self.accepted if finish_reason else 0,
        )
        self.cut, self.new_tokens, self.logprobs, self.index = NOTHING, 0, [], self.index + 1
        return chunk
