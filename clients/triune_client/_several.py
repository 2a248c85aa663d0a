"""The course of one call that several answers come back for. Does no I/O."""

from __future__ import annotations

from ._errors import StreamBroken
from ._flow import Flow
from ._types import Chunk, Completion, FinishReason
from ._wire import Call


class GroupFlow(Flow):
    """State of one call for `n` answers: what is said of one is said of the first, and it ends with the last of them."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._n = call.settings.options.n or 1
        self._members: dict[int, Flow] = {}  # made when they are first needed: the server decides how many there may be

    @property
    def text(self) -> str:
        """The text of the first answer so far."""
        return self._member(0).text

    @property
    def reasoning(self) -> str:
        """The thinking of the first answer so far."""
        return self._member(0).reasoning

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first answer ended, or "error" if that is the end of any; None while one has not ended."""
        reasons = [member.finish_reason for member in self._members.values()]
        if len(reasons) < self._n or None in reasons:  # of those that nothing has come of, there may be no member yet
            return None
        return "error" if "error" in reasons else self._member(0).finish_reason

    def receive(self, chunk: Chunk) -> tuple[Chunk, ...]:
        """Takes the next chunk of one of the answers. Raises as `Flow.receive`, and StreamBroken if there is no such answer."""
        if not 0 <= chunk.sequence < self._n:
            raise StreamBroken(f"the server sent a chunk of sequence {chunk.sequence}; {self._n} were asked for")
        self.last = chunk
        return self._member(chunk.sequence).receive(chunk)

    def completion(self) -> Completion:
        """The first answer. Raises as `completions`."""
        return self.completions()[0]

    def completions(self) -> tuple[Completion, ...]:
        """All answers, whole or as far as they were read. Raises as `Flow.completion`, of any."""
        members = [self._member(sequence) for sequence in range(self._n)]
        for member in members:
            member.left = self.left
        return tuple(member.completion() for member in members)

    def _member(self, sequence: int) -> Flow:
        if sequence not in self._members:
            self._members[sequence] = Flow(self.call)
            self._members[sequence].started = self.started
        return self._members[sequence]
