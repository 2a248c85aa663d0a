"""What the scheduler asks of KV memory, in integers: which slots a sequence has, and how many of its tokens fit there.

A slot is a sequence's place in the runner's batches. Where its KV lies is the store's affair: in a stretch of its own
(`slots`), or in blocks that sequences may share. A store decides nothing but that, and the runner owns the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..runner import Order
from .names import Prompt


class Held(NamedTuple):
    """What a prompt's sequences have been given."""

    slots: tuple[int, ...]  # of the one that computes the prompt, and of those that wait for it
    cached: int  # tokens at the prompt's beginning whose KV is there already; less than all of them
    room: int  # tokens that fit in the first slot before `extend` must be asked
    new_blocks: int
    reused_blocks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KvUsage:
    """How full the memory is, in blocks; a store of slots has one block a slot."""

    blocks: int  # in all
    used: int  # held by sequences
    block_tokens: int  # tokens of a block


class KvStore(Protocol):
    """See the module."""

    shares: bool  # whether prompts find what others have computed; false from the beginning, or not at all

    @property
    def slots(self) -> int:
        """Sequences that can be held at once."""
        ...

    @property
    def longest(self) -> int:
        """Tokens of a sequence that has the memory for itself."""
        ...

    def longest_prompt(self, members: int) -> int:
        """Tokens of a prompt that `members` sequences can continue, if they have the memory for themselves."""
        ...

    def admits(self, prompt: Prompt, members: int) -> int | None:
        """Whether `admit` would find room now: how many tokens would be cached; None: no room."""
        ...

    def comes(self, prompt: Prompt) -> bool:
        """Whether more of `prompt`'s beginning than `admits` says is being computed for somebody now, and will be found."""
        ...

    def admit(self, prompt: Prompt, members: int) -> Held:
        """Slots for `members` sequences of one prompt, and memory for its first tokens at least. Ask `admits` first."""
        ...

    def extend(self, slot: int, length: int) -> int:
        """Memory for `length` tokens in `slot`: how many fit now; 0: there is none, and nothing has changed."""
        ...

    def fork(self, slot: int, targets: Sequence[int], length: int) -> int:
        """Give the first `length` tokens of `slot` to the slots `targets` too: how many tokens fit in each of these."""
        ...

    def settle(self, slot: int, tokens: Sequence[int], length: int, *, together: bool) -> None:
        """The KV of the first `length` of `tokens` is in `slot`, or will be by what is launched: others may find it.

        Args:
            together: whether what is new since the last call is one run of a part of a prompt; else its tokens came one by one.
        """
        ...

    def release(self, slot: int, *, keep: bool = True) -> None:
        """Take a slot back. What is in flight may still write there: launches run in order, so it comes before what follows.

        Args:
            keep: others may find what was settled; not so if its KV may be wrong.
        """
        ...

    def forget(self) -> None:
        """Nobody finds anything that was settled until now: what is in memory may be wrong."""
        ...

    def gaps(self, decoding: Iterable[int]) -> bool:
        """Whether `arrange` would move something."""
        ...

    def arrange(self, decoding: Mapping[int, int]) -> dict[int, int]:
        """Bring sequences that decode to where the runner can run them as one batch: slot -> the other slot it has now.

        Args:
            decoding: slot -> its tokens that are computed.
        """
        ...

    def orders(self) -> tuple[Order, ...]:
        """What the memory must do before the next launch, in this order; each is told once."""
        ...

    def idle(self, now: float) -> Sequence[tuple[int, int]]:
        """Slots whose memory nobody has needed for a while, each with how many of its first tokens are still of use.

        Prompts do not find any more what lies behind these. Asked between two steps, each slot is told once.

        Args:
            now: seconds, of any clock that goes on evenly.
        """
        ...

    def usage(self) -> KvUsage: ...

    def check(self, holders: Sequence[int]) -> None:
        """Assert that exactly the slots `holders` are held, each once, and that the store's own books agree."""
        ...
