"""The state of one request while it is served. Knows tokens and its slot; no scheduling, no text, no tensor.

Requests for several answers to one prompt are a group: the prompt is computed once, for its leader, and given to the siblings.
When the prompt is computed, the group is dissolved: each is a sequence like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import TooLong
from ..kv.names import Prompt
from ..request import KvCounts, Request, TokenLogprob


@dataclass(eq=False, slots=True)
class Sequence:
    """Prompt and answer of one request, and how much of it is in the KV cache."""

    request: Request
    max_tokens: int  # of the answer; resolved against the engine's length
    number: int = 0  # in the order of arrival
    overlaps: bool = False  # its next token can be computed from one that the host does not know yet
    tokens: list[int] = field(init=False)
    longest: int = field(init=False)  # tokens of prompt and answer together
    computed: int = 0  # tokens whose KV is in the cache, or will be by what is launched
    unknown: int = 0  # tokens at the end that steps in flight are choosing; not among `tokens` yet
    held: bool = False  # what may come next is not known yet
    shares: bool = False  # the token in flight is chosen from a row that several take: the runner does not know it
    slot: int | None = None  # while it holds one
    kv: KvCounts | None = None  # what its prompt took when it first got a slot
    found: int = 0  # tokens whose KV was there when it last got a slot
    room: int = 0  # tokens that fit there before the store must be asked for more
    turn: int = 0  # how often it has lost its slot to others: what was launched in an earlier turn counts for nothing
    started: bool = False  # something of it has been launched once
    read: int = 0  # tokens of the prompt that were computed for it, each counted once
    scores: list[TokenLogprob] = field(default_factory=list)  # of the prompt's tokens from the second on; the group's together
    leader: Sequence | None = None  # whose prompt this one waits for
    siblings: list[Sequence] = field(default_factory=list)  # who wait for this one's prompt
    _prompt: Prompt | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self.longest = len(self.tokens) + self.max_tokens

    @property
    def key(self) -> int:
        return self.request.key

    @property
    def unscored(self) -> bool:
        """Whether the log probabilities of its prompt are wanted, and are not all known yet."""
        return self.request.params.prompt_logprobs is not None and len(self.tokens) == len(self.request.prompt)

    @property
    def prompt(self) -> Prompt:
        """All its tokens, as KV memory is asked for them. What is cached has no logits: who needs them all shares nothing."""
        if self._prompt is None or len(self._prompt) != len(self.tokens):
            request, salt = self.request, None if self.unscored else self.request.cache_salt.encode()
            whole = len(self.tokens) == len(request.prompt)
            self._prompt = Prompt(request.prompt, salt, request.packed) if whole else Prompt(tuple(self.tokens), salt)
        return self._prompt

    @property
    def members(self) -> list[Sequence]:
        """This sequence and those that wait for its prompt."""
        return [self, *self.siblings]

    def lead(self, siblings: list[Sequence]) -> None:
        """Compute the prompt for `siblings` too."""
        self.siblings = siblings
        for sibling in siblings:
            sibling.leader, sibling.scores = self, self.scores

    def hand_over(self) -> Sequence:
        """Make the first sibling the leader: it goes on with what is computed, in the slot where that is."""
        heir, *rest = self.siblings
        heir.leader, self.siblings = None, []
        heir.lead(rest)
        heir.slot, self.slot = self.slot, heir.slot
        heir.computed, heir.room, heir.turn, heir.started = self.computed, self.room, self.turn, self.started
        self.computed = 0
        return heir

    def dissolve(self, room: int) -> tuple[Sequence, ...]:
        """End the group, whose prompt is computed and given to all. Returns the siblings.

        Args:
            room: of each sibling's slot.
        """
        siblings, self.siblings = self.siblings, []
        self.shares = bool(siblings)
        for sibling in siblings:
            sibling.leader, sibling.computed, sibling.room = None, self.computed, room
            sibling.turn, sibling.started, sibling.shares = self.turn, True, True
        return tuple(siblings)

    def lose_slot(self) -> None:
        """Begin anew later: what is computed is gone, what is generated is not."""
        self.slot, self.computed, self.unknown, self.room, self.shares = None, 0, 0, 0, False
        self.turn += 1

    @property
    def pending(self) -> int:
        """Tokens that must be run before the next one can be chosen."""
        return len(self.tokens) + self.unknown - self.computed

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.request.prompt)


def answer_length(request: Request, limit: int) -> int:
    """The most tokens that the answer to a request may have.

    Args:
        limit: tokens of prompt and answer together.

    Raises:
        TooLong: prompt and max_tokens do not fit.
    """
    prompt, wanted = len(request.prompt), request.params.max_tokens
    room = limit - prompt
    if room < 1:
        raise TooLong(
            f"prompt has {prompt:,} tokens, but this engine holds {limit:,} with the answer",
            f"shorten the prompt, or build the engine with --max-length {prompt + (wanted or 256)}",
            param="prompt",
        )
    if wanted is not None and wanted > room:
        raise TooLong(
            f"prompt has {prompt:,} tokens and max_tokens is {wanted:,}, but this engine holds {limit:,} in all",
            f"send max_tokens of at most {room:,}, or build the engine with --max-length {prompt + wanted}",
            param="max_tokens",
        )
    return room if wanted is None else wanted
