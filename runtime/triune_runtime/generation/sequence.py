"""The state of one request while it is served. Knows tokens and its slot; no scheduling, no text, no tensor.

Requests for several answers to one prompt are a group: the prompt is computed once, for its leader, and copied to the
siblings. When the prompt is computed, the group is dissolved: each is a sequence like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..request import Request


@dataclass(eq=False, slots=True)
class Sequence:
    """Prompt and answer of one request, and how much of it is in the KV cache."""

    request: Request
    max_tokens: int  # of the answer; resolved against the engine's length
    tokens: list[int] = field(init=False)
    computed: int = 0  # tokens whose KV is in the cache
    slot: int | None = None  # while it holds one
    leader: Sequence | None = None  # whose prompt this one waits for
    siblings: list[Sequence] = field(default_factory=list)  # who wait for this one's prompt

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)

    @property
    def key(self) -> int:
        return self.request.key

    @property
    def members(self) -> list[Sequence]:
        """This sequence and those that wait for its prompt."""
        return [self, *self.siblings]

    def lead(self, siblings: list[Sequence]) -> None:
        """Compute the prompt for `siblings` too."""
        self.siblings = siblings
        for sibling in siblings:
            sibling.leader = self

    def hand_over(self) -> Sequence:
        """Make the first sibling the leader: it goes on with what is computed, in the slot where that is."""
        heir, *rest = self.siblings
        heir.leader, self.siblings = None, []
        heir.lead(rest)
        heir.slot, self.slot = self.slot, heir.slot
        heir.computed = self.computed
        return heir

    def dissolve(self) -> list[Sequence]:
        """End the group, whose prompt is computed and copied. Returns who was in it."""
        members, self.siblings = self.members, []
        for member in members:
            member.leader, member.computed = None, self.computed
        return members

    @property
    def pending(self) -> int:
        """Tokens that must be run before the next one can be chosen."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.request.prompt)
