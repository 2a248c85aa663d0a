"""Decides what runs next. Knows tokens and slots as integers; no model, no tensor, no text, no Triton.

Decoding sequences hold slots 0, 1, ..., n-1, so that a runner can run them as one batch. Prompts are computed in slots behind
them, in the order they came, and cut at multiples of `prefill_chunk` whatever else is running: a prompt's numbers never
depend on its neighbours. At most one prompt is half computed, the others wait without a slot.

A step of few decoding sequences takes almost as long as one of many. So while more sequences are about to start than are
decoding, these stand still for some chunks of prompts: all of them together are done sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

from ..errors import Overloaded, TooLong
from ..kv.slots import SlotPool
from ..manifest import Limits
from ..request import Request
from .sequence import Sequence

_MOST_CHUNKS = 4  # of prompts between two steps in which the decoding sequences go on


@dataclass(frozen=True, slots=True)
class Slice:
    """Run `length` tokens of `sequence` from its token `start`: its own, and then `drafts` of the tokens that may follow."""

    sequence: Sequence
    start: int
    length: int  # drafts included
    samples: bool  # whether the next token can be chosen after it
    drafts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Copy the KV of the first `length` tokens of slot `source` to slot `target`, which is free."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to run now: first the moves, then the slices."""

    moves: tuple[Move, ...]
    slices: tuple[Slice, ...]


class Scheduler:
    """Waiting, prefilling and decoding sequences, and the slots they hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self._slots = SlotPool(limits.max_sequences)
        self._prompted = 0  # tokens of prompts since the decoding sequences last went on

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a slot."""
        return self.decoding + [member for leader in self.prefilling for member in leader.members]

    @property
    def queued(self) -> int:
        """How many sequences wait for a slot."""
        return sum(len(leader.members) for leader in self.waiting)

    @property
    def stands_still(self) -> bool:
        """Whether the next step has only prompts.

        A step without the decoding sequences delays each of them, and one with them delays each that is about to start.
        """
        if not self.decoding or self._has_gaps:  # a prompt that is half computed may not get a slot in a gap
            return False
        starting = sum(len(leader.members) for leader in self.prefilling)
        if self._has_room:
            starting += min(self.queued, self._slots.free)
        chunks = min(starting // len(self.decoding), _MOST_CHUNKS)
        # One chunk runs in this step, and the last one in that in which the decoding sequences go on.
        return self._prompted <= (chunks - 2) * self.limits.prefill_chunk

    def add(self, request: Request, siblings: Iterable[Request] = ()) -> Sequence:
        """Queue a request, and with it others for the same prompt: all of them get slots together.

        Raises:
            TooLong: prompt and max_tokens do not fit the engine.
            Overloaded: `max_queue` sequences are waiting already.
        """
        sequence = Sequence(request, self._answer_length(request))
        sequence.lead([Sequence(sibling, self._answer_length(sibling)) for sibling in siblings])
        if (queued := self.queued) >= self.limits.max_queue:
            raise Overloaded(
                f"{queued:,} requests are waiting already, the limit is {self.limits.max_queue:,}",
                "send it again later",
            )
        self.waiting.append(sequence)
        return sequence

    def plan(self, drafts: Mapping[int, tuple[int, ...]] | None = None) -> Step:
        """One token of each decoding sequence unless they stand still, then chunks of prompts: one chunk's tokens at most.

        Args:
            drafts: guesses of what follows, by sequence key; cut to what the answer may still have.
        """
        if self.stands_still:
            prompts = self._prompt_slices()
            self._prompted += sum(part.length for part in prompts)
            return Step((), prompts)
        self._prompted = 0
        moves = self._close_gaps()
        prompts = self._prompt_slices()
        return Step(moves, (*(_decode_slice(s, (drafts or {}).get(s.key, ())) for s in self.decoding), *prompts))

    def commit(self, step: Step, chosen: Mapping[int, Items[int]]) -> None:
        """Take in a step that has run: `chosen` maps sequence keys to next tokens, for every slice that samples.

        These are at least one, and one more for every draft in turn that is what was chosen in its place.

        Slices of sequences removed since the plan count for nothing. Whose prompt is complete joins the decoding ones.
        """
        for part in step.slices:
            sequence = part.sequence
            if sequence.slot is None:
                continue
            sequence.computed += part.length - len(part.drafts)
            if part.samples:
                joining = sequence in self.prefilling
                members = sequence.dissolve()
                for member in members:
                    tokens = chosen[member.key]
                    assert 0 < len(tokens) <= 1 + len(part.drafts), f"{len(tokens)} tokens of {len(part.drafts)} drafts"
                    member.tokens.extend(tokens)
                    member.computed += len(tokens) - 1  # drafts that were right are in the cache already
                if joining:
                    self.prefilling.remove(sequence)
                    self.decoding += members

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is and free its slot; its KV is not needed any more."""
        if sequence.leader is not None:
            sequence.leader.siblings.remove(sequence)
            sequence.leader = None
        for group in (self.decoding, self.prefilling, self.waiting):
            if sequence in group:
                at = group.index(sequence)
                if sequence.siblings:
                    group[at] = sequence.hand_over()
                else:
                    del group[at]
        if sequence.slot is not None:
            self._slots.release(sequence.slot)
            sequence.slot = None

    def check(self) -> None:
        """Assert that slots and lists agree."""
        slots = [s.slot for s in self.running if s.slot is not None]
        assert len(slots) == len(self.running), "a running sequence has no slot"
        self._slots.check(slots)
        assert all(s.slot is None for leader in self.waiting for s in leader.members), "a waiting sequence holds a slot"

    def _answer_length(self, request: Request) -> int:
        """The most tokens that the answer may have."""
        prompt, limit, wanted = len(request.prompt), self.limits.max_length, request.params.max_tokens
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

    @property
    def _has_room(self) -> bool:
        """Whether somebody waits, and there are slots for the first of them and its siblings."""
        return bool(self.waiting) and self._slots.free >= len(self.waiting[0].members)

    @property
    def _has_gaps(self) -> bool:
        return {s.slot for s in self.decoding} != set(range(len(self.decoding)))

    def _prompt_slices(self) -> tuple[Slice, ...]:
        """The next part of every prompt that runs now; takes those in that fit."""
        prompts = [self._prompt_slice(s) for s in self.prefilling]
        budget = self.limits.prefill_chunk - sum(part.length for part in prompts)
        while self._has_room:
            part = self._prompt_slice(self.waiting[0])
            if part.length > budget:  # those behind it wait as well: nobody overtakes
                break
            sequence = self.waiting.popleft()
            for member in sequence.members:
                member.slot = self._slots.acquire()
            self.prefilling.append(sequence)
            prompts.append(part)
            budget -= part.length
        return tuple(prompts)

    def _prompt_slice(self, sequence: Sequence) -> Slice:
        """Up to the next multiple of `prefill_chunk`, or to the prompt's end."""
        chunk = self.limits.prefill_chunk
        length = min(sequence.pending, chunk - sequence.computed % chunk)
        return Slice(sequence, sequence.computed, length, samples=length == sequence.pending)

    def _close_gaps(self) -> tuple[Move, ...]:
        """Bring the decoding sequences to the first slots.

        Only now, not when one leaves: sequences that end together would be copied for nothing.
        """
        by_slot = {s.slot: s for s in self.decoding if s.slot is not None}
        moves = []
        for source, target in self._slots.compact(list(by_slot)).items():
            sequence = by_slot[target] = by_slot.pop(source)
            sequence.slot = target
            moves.append(Move(source, target, sequence.computed))
        self.decoding = [by_slot[slot] for slot in range(len(by_slot))]
        return tuple(moves)


def _decode_slice(sequence: Sequence, drafts: tuple[int, ...]) -> Slice:
    """The last draft that can be right is the one before the answer's last token."""
    drafts = drafts[: sequence.max_tokens - sequence.generated - 1]
    return Slice(sequence, sequence.computed, 1 + len(drafts), samples=True, drafts=drafts)
