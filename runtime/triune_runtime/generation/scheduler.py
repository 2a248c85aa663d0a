"""Decides what runs next. Knows tokens and slots as integers; no model, no tensor, no text, no Triton.

Prompts are computed in the order they came, and cut at multiples of `prefill_chunk` whatever else is running: a prompt's
numbers never depend on its neighbours. At most one prompt is half computed, the others wait without a slot. Where KV memory
ends before the sequences do, the youngest of them give theirs back and are computed again later. A prompt that begins with what
is being computed for another waits for that.

A step of few decoding sequences takes almost as long as one of many. So while more sequences are about to start than are
decoding, these stand still for some chunks of prompts: all of them together are done sooner.

A step may be planned while the one before is in flight. Its tokens are counted then, not known: a sequence goes on with one
that it does not know if it may (`Sequence.overlaps`), else with the step after the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items

from ..errors import Overloaded, TooLong
from ..kv.store import KvStore
from ..manifest import Limits
from ..request import KvCounts, Request
from .cutting import Cutting
from .sequence import Sequence, answer_length
from .step import Slice, Step
from .waiting import FairShare, Waiting

_MOST_CHUNKS = 4  # of prompts between two steps in which the decoding sequences go on
_NO_DRAFTS: Mapping[int, tuple[int, ...]] = {}


class Scheduler:
    """Waiting, prefilling and decoding sequences, and the KV memory they hold."""

    def __init__(
        self, limits: Limits, store: KvStore, *, most_scored: int | None = None, fair: FairShare | None = None
    ) -> None:
        """
        Args:
            most_scored: tokens of scored prompts in one step; None: as many as of others.
            fair: how clients share the slots; None: who comes first is served first.
        """
        self.limits = limits
        self._cutting = Cutting(limits, most_scored)
        self.store = store
        self.waiting = Waiting(fair)
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self._numbers = itertools.count()
        self._known = set[Sequence]()  # whoever waits or runs
        self._prompted = 0  # tokens of prompts since the decoding sequences last went on
        self._arranged = True  # the decoding sequences are where the store wants them, in the order of their slots

    @property
    def running(self) -> list[Sequence]:
        """Sequences that hold a slot."""
        return self.decoding + [member for leader in self.prefilling for member in leader.members]

    @property
    def queued(self) -> int:
        """How many sequences wait for a slot."""
        return len(self._known) - len(self.decoding) - sum(len(leader.members) for leader in self.prefilling)

    @property
    def stands_still(self) -> bool:
        """Whether the next step has only prompts.

        A step without the decoding sequences delays each of them, and one with them delays each that is about to start.
        """
        if not (self.decoding and (self.prefilling or self.waiting)) or self._has_gaps:
            return False  # with gaps: a prompt that is half computed may not get a slot in one
        starting = sum(len(leader.members) for leader in self.prefilling)
        if self._has_room:
            starting += min(self.queued, self.store.slots - len(self.running))
        chunks = min(starting // len(self.decoding), _MOST_CHUNKS)
        # One chunk runs in this step, and the last one in that in which the decoding sequences go on.
        return self._prompted <= (chunks - 2) * self.limits.step_tokens

    def add(self, request: Request, siblings: Iterable[Request] = (), *, overlaps: bool = False) -> Sequence:
        """Queue a request, and with it others for the same prompt: all of them get slots together.

        Args:
            overlaps: see `Sequence`; of all of them.

        Raises:
            TooLong: prompt and max_tokens do not fit the engine, or the prompt does not with so many siblings.
            Overloaded: `max_queue` sequences are waiting already, or as many of this client as may.
        """
        longest = min(self.limits.max_length, self.store.longest)
        sequence, *others = (
            Sequence(one, answer_length(one, longest), next(self._numbers), overlaps) for one in (request, *siblings)
        )
        sequence.lead(others)
        if (size := len(request.prompt)) > (most := self.store.longest_prompt(len(sequence.members))):
            said = f"prompt has {size:,} tokens, but this engine holds {most:,} with {len(sequence.members)} answers"
            raise TooLong(said, "ask for fewer answers, or shorten the prompt", param="n")
        if (queued := self.queued) >= self.limits.max_queue:
            said = f"{queued:,} requests are waiting already, the limit is {self.limits.max_queue:,}"
            raise Overloaded(said, "send it again later")
        self.waiting.append(sequence)
        self._known.update(sequence.members)
        return sequence

    def plan(self, drafts: Mapping[int, tuple[int, ...]] = _NO_DRAFTS) -> Step:
        """One token of each decoding sequence unless they stand still, then parts of prompts within the step's budget.

        Args:
            drafts: guesses of what follows, by sequence key; cut to what the answer may still have.
        """
        if self.stands_still:
            prompts = self._prompt_slices()
            self._prompted += sum(self._cost(part) for part in prompts)
            return self._launched([], prompts)
        self._prompted = 0
        drafts = self._fitting(drafts) if drafts else drafts
        self._make_room(drafts)
        self._arrange()
        return self._launched(self._decode_slices(drafts), self._prompt_slices())

    def commit(self, step: Step, chosen: Mapping[int, Items[int]]) -> None:
        """Take in a step that has run: `chosen` maps sequence keys to next tokens, for every slice that samples.

        These are at least one, and one more for every draft in turn that is what was chosen in its place.

        Slices of sequences that have been removed, or sent back to wait, since the plan count for nothing.
        """
        for part in step.slices:
            for taker in (part.takers if part.siblings else (part.sequence,)) if part.samples else ():
                if taker.slot is None or taker.turn != part.turn:
                    continue
                tokens = chosen[taker.key]
                assert 0 < len(tokens) <= 1 + len(part.drafts), f"{len(tokens)} tokens of {len(part.drafts)} drafts"
                taker.tokens.extend(tokens)
                taker.unknown -= 1
                taker.shares = False
                taker.computed += len(tokens) - 1  # drafts that were right are in the cache already

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Forget a sequence wherever it is and free its slot; its KV is not needed any more.

        Args:
            keep: others may be given its KV; not so if that may be wrong.
        """
        self._known.discard(sequence)
        if sequence.leader is not None:
            sequence.leader.siblings.remove(sequence)
            sequence.leader = None
        self._arranged = False
        for group in (self.decoding, self.prefilling):
            if sequence in group:
                at = group.index(sequence)
                group[at : at + 1] = [sequence.hand_over()] if sequence.siblings else []
        self.waiting.leave(sequence)
        if sequence.slot is not None:
            self._release(sequence, keep=keep)
            self.waiting.released(sequence, ended=True)
            sequence.slot = None

    def check(self) -> None:
        """Assert that slots and lists agree."""
        slots = [s.slot for s in self.running if s.slot is not None]
        assert len(slots) == len(self.running), "a running sequence has no slot"
        self.store.check(slots)
        assert all(s.slot is None for leader in self.waiting for s in leader.members), "a waiting sequence holds a slot"
        assert self.queued == sum(len(leader.members) for leader in self.waiting), "who waits is counted wrongly"

    @property
    def _has_room(self) -> bool:
        """Whether somebody waits, and there is room for the first of them and its siblings."""
        first = self.waiting.first
        return first is not None and self.store.admits(first.prompt, len(first.members)) is not None

    @property
    def _has_gaps(self) -> bool:
        return self.store.gaps(s.slot for s in self.decoding if s.slot is not None)

    def _launched(self, decodes: list[Slice], prompts: list[Slice]) -> Step:
        """The step of these slices, which count as run from now on. Whose prompt is complete joins the decoding sequences."""
        orders = self.store.orders() if decodes or prompts else ()  # else they wait for a step that runs
        for number, part in enumerate(prompts):
            sequence = part.sequence
            assert sequence.slot is not None, "it runs"
            sequence.computed += part.length
            # Those who are admitted from the next step on may find it: that runs after this one.
            self.store.settle(sequence.slot, sequence.tokens, sequence.computed, together=True)
            if part.samples:
                sequence.unknown += 1
                prompts[number] = part._replace(siblings=self._join(sequence))
        return Step(orders, (*decodes, *prompts))

    def _join(self, sequence: Sequence) -> tuple[Sequence, ...]:
        """Let a sequence whose prompt this step computes decode from the next on, and its siblings with it. Returns these."""
        assert sequence.slot is not None, "it runs"
        slots = [sibling.slot for sibling in sequence.siblings if sibling.slot is not None]
        room = self.store.fork(sequence.slot, slots, sequence.computed) if slots else 0
        siblings = sequence.dissolve(room)
        for sibling in siblings:
            sibling.unknown += 1
        self.prefilling.remove(sequence)
        self.decoding += (sequence, *siblings)
        self._arranged = False
        return siblings

    def _prompt_slices(self) -> list[Slice]:
        """The next part of every prompt that runs now; takes those in that fit."""
        budget, prompts = self.limits.step_tokens, list[Slice]()
        for begun in self.prefilling:
            prompts.append(self._prompt_slice(begun, self._cutting.length(begun.computed, begun, budget)))
            budget -= self._cost(prompts[-1])
        while (sequence := self.waiting.first) and not (prompts and prompts[-1].scored and not prompts[-1].samples):
            cached = self.store.admits(sequence.prompt, len(sequence.members))
            if cached is None or not (length := self._cutting.length(cached, sequence, budget)):
                break  # those behind it wait as well: nobody overtakes
            if prompts and self.store.comes(sequence.prompt):
                break  # what it begins with runs in this step: it need not be computed twice
            self._admit(self.waiting.take())
            self.prefilling.append(sequence)
            prompts.append(self._prompt_slice(sequence, length))
            budget -= self._cost(prompts[-1])
        return prompts

    def _admit(self, sequence: Sequence) -> None:
        held = self.store.admit(sequence.prompt, len(sequence.members))
        for member, slot in zip(sequence.members, held.slots, strict=True):
            member.slot = slot
        if not sequence.started:
            sequence.kv = KvCounts(held.new_blocks - len(sequence.siblings), held.reused_blocks, held.cached)
        sequence.computed, sequence.room, sequence.found = held.cached, held.room, held.cached

    def _prompt_slice(self, sequence: Sequence, length: int) -> Slice:
        start, first = sequence.computed, not sequence.started
        sequence.started = True
        return Slice(sequence, start, length, length == sequence.pending, sequence.turn, first=first, scored=sequence.unscored)

    def _cost(self, part: Slice) -> int:
        return self._cutting.cost(part.length, scored=part.scored)

    def _decode_slices(self, drafts: Mapping[int, tuple[int, ...]]) -> list[Slice]:
        """One token of each decoding sequence, and its drafts; none of those that wait for a token in flight, or are held."""
        slices = []
        for s in (s for s in self.decoding if not s.held):
            if s.unknown:
                if not s.overlaps or s.shares or len(s.tokens) + s.unknown >= s.longest:
                    continue
                part = Slice(s, s.computed, 1, True, s.turn, (), True)
            elif drafts and (own := drafts.get(s.request.key)):
                part = Slice(s, s.computed, 1 + len(own), True, s.turn, own)
            else:
                part = Slice(s, s.computed, 1, True, s.turn)
            s.computed += 1
            s.unknown += 1
            slices.append(part)
        return slices

    def _fitting(self, drafts: Mapping[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
        """Drafts that can be right: the last one is the one before the answer's last token."""
        return {s.key: drafts[s.key][: s.max_tokens - s.generated - 1] for s in self.decoding if s.key in drafts}

    def _make_room(self, drafts: Mapping[int, tuple[int, ...]]) -> None:
        """Memory for one more token of each decoding sequence, and its drafts; the youngest give way to the others."""
        short = [s for s in self.decoding if s.computed + (len(drafts.get(s.key, ())) if drafts else 0) >= s.room]
        for sequence in sorted(short, key=lambda s: s.number):
            wanted = sequence.computed + 1 + len(drafts.get(sequence.key, ()))
            while sequence.slot is not None and not (room := self.store.extend(sequence.slot, wanted)):
                self._send_back(max((*self.decoding, *self.prefilling), key=lambda s: s.number))
            if sequence.slot is not None:
                sequence.room = room

    def _send_back(self, sequence: Sequence) -> None:
        """Let a sequence wait again, before all others, with the tokens it has."""
        (self.decoding if sequence in self.decoding else self.prefilling).remove(sequence)
        self._arranged = False
        for member in sequence.members:
            self._release(member, keep=True)
            self.waiting.released(member, ended=False)
            member.lose_slot()
        self.waiting.put_back(sequence)

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        """Give back the slot of one that runs; others, or itself when it comes back, may find its KV there."""
        assert sequence.slot is not None, "it runs"
        if keep:
            self.store.settle(sequence.slot, sequence.tokens, min(sequence.computed, len(sequence.tokens)), together=False)
        self.store.release(sequence.slot, keep=keep)

    def _arrange(self) -> None:
        """Bring the decoding sequences together.

        Only now, not when one leaves: sequences that end together would be copied for nothing.
        """
        if self._arranged:
            return
        by_slot = {s.slot: s for s in self.decoding if s.slot is not None}
        for source, target in self.store.arrange({slot: s.computed for slot, s in by_slot.items()}).items():
            by_slot[source].slot = target
        self.decoding.sort(key=lambda s: s.slot or 0)
        self._arranged = True
