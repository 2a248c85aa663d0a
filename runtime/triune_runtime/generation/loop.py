"""The loop's body: plan, launch, collect, commit. No threads, no sockets, no Triton; time comes in as a function."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items

from ..constraints import Constraint
from ..errors import Overloaded, RequestError, TriuneError
from ..kv.store import KvStore
from ..manifest import EngineManifest, Limits
from ..metrics import Metrics, Snapshot
from ..request import Event, FinishReason, Request, TokenLogprob
from ..runner import Runner, Shrinking
from ..sampling.sampler import Sampler
from ..text.vocabulary import TokenBytes
from .answers import Answers, Wanted, everyone
from .holding import Holding, Taken
from .scheduler import Scheduler
from .scoring import check_scored
from .sequence import Sequence
from .step import Step
from .stepping import Drafts, Launched, NoDrafts, Stepper
from .waiting import FairShare

LOG = logging.getLogger(__name__)
_NONE: list[TokenLogprob] = []
_SCORED_LOGITS = 1 << 22  # of prompts in one step: what they keep the others waiting, some 50 ms


class StepLoop:
    """See `Generator`: serves requests step by step, with a runner that computes logits."""

    def __init__(
        self,
        manifest: EngineManifest,
        runner: Runner,
        token_bytes: TokenBytes,
        *,
        store: KvStore,
        sampler: Sampler,
        drafts: Drafts | None = None,
        fair: FairShare | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            store: of the runner's KV memory.
            drafts: None: nothing is guessed.
            fair: see `Scheduler`.
        """
        self.manifest = manifest
        self.runner = runner
        most_scored = max(1, _SCORED_LOGITS // manifest.vocab_size)
        self.scheduler = Scheduler(manifest.limits, store, most_scored=most_scored, fair=fair)
        self.metrics = Metrics(self.snapshot())
        self.answers = Answers(manifest, token_bytes, self.metrics, clock)
        self.sampler = sampler
        self.drafts = drafts or NoDrafts()
        self._stepper = Stepper(runner, sampler, self.drafts, clock)
        self._clock = clock
        self._flying: Launched | None = None
        self._sequences: dict[int, Sequence] = {}
        self._holding = Holding(sampler)

    @property
    def limits(self) -> Limits:
        return self.manifest.limits

    @property
    def has_work(self) -> bool:
        """See `Generator.has_work`."""
        return bool(self.answers) or self._flying is not None

    def start(self) -> None:
        """See `Generator.start`."""
        self.runner.warm_up()

    def submit(self, request: Request, constraint: Constraint | None = None) -> None:
        """See `submit_group`: a group of one."""
        self.submit_group((request,), (constraint,))

    def submit_group(self, requests: Items[Request], constraints: Items[Constraint | None] = ()) -> None:
        """See `Generator.submit_group`. The prompt is computed once.

        Raises:
            RequestError: see `Answers.check`; drafts of an engine that checks none; or more requests than there are slots.
            TooLong, Overloaded: see `Scheduler.add`.
        """
        for request in requests:
            assert request.key not in self.answers, f"request key {request.key} is in use"
        try:
            self._check(requests)
            leader = self.scheduler.add(requests[0], requests[1:])
        except TriuneError as error:
            self.metrics.refused("overloaded" if isinstance(error, Overloaded) else "invalid")
            raise
        members = leader.members
        try:
            for member, constraint in zip(members, constraints or [None] * len(members), strict=True):
                self._open(member, constraint)
        except BaseException:  # nothing of a request may stay behind that its caller believes refused
            for member in members:
                self.scheduler.remove(member)
                self.sampler.remove(member.key)
                self.answers.discard(member.key)
                self._sequences.pop(member.key, None)
            raise

    def abort(self, key: int, reason: FinishReason = "cancelled") -> list[Event]:
        """See `Generator.abort`. Its slot is free from now on."""
        return [self._finish(key, reason)] if key in self.answers else []

    def abort_id(self, request_id: str) -> list[Event]:
        """See `Generator.abort_id`."""
        return [self._finish(key, "cancelled") for key in self.answers.named(request_id)]

    def close(self) -> list[Event]:
        """See `Generator.close`."""
        waiting = [member.key for leader in self.scheduler.waiting for member in leader.members if not member.generated]
        stopping = Overloaded("the server is stopping", "send it again, to another server or later", code="stopping")
        refused = self._fail(waiting, stopping)
        events = refused + [self._finish(key, "cancelled") for key in self.answers.keys]
        if self._flying is not None:
            self._land(self._flying)
        self.runner.close()
        return events

    def step(self, wanted: Wanted = everyone) -> list[Event]:
        """See `Generator.step`. Where the runner works beside the host, one step is planned while another is computed."""
        events = [self._finish(key, "deadline") for key in self.answers.late()]
        events += self._go_on()
        landing = self._launch(events)
        if self.runner.depth:
            landing, self._flying = self._flying, landing
        if landing is not None:
            events += self._land(landing)
        elif self._holding and self._flying is None:
            self._holding.rest()
        return events + self.answers.pieces(wanted())

    def rest(self) -> None:
        """See `Generator.rest`."""
        if isinstance(self.runner, Shrinking):
            for slot, needed in self.scheduler.store.idle(self._clock()):
                self.runner.give_back(slot, needed)

    def snapshot(self) -> Snapshot:
        """See `Generator.snapshot`."""
        scheduler, kv = self.scheduler, self.scheduler.store.usage()
        block_bytes = self.manifest.kv_bytes(kv.block_tokens)
        return Snapshot(
            decoding=len(scheduler.decoding),
            prefilling=len(scheduler.running) - len(scheduler.decoding),
            waiting=scheduler.queued,
            # What several share lies there once.
            tokens=min(sum(s.computed for s in scheduler.running), kv.used * kv.block_tokens),
            slots=scheduler.store.slots,
            kv=kv,
            kv_bytes=min(sum(self.manifest.kv_bytes(s.computed) for s in scheduler.running), kv.used * block_bytes),
            kv_bytes_max=kv.blocks * block_bytes,
        )

    def _check(self, requests: Items[Request]) -> None:
        if len(requests) > self.scheduler.store.slots:
            raise RequestError(
                f"{len(requests)} sequences are asked for, but this engine serves {self.scheduler.store.slots} at once",
                f"ask for at most {self.scheduler.store.slots}",
                code="too_many_sequences",
                param="n",
            )
        self.answers.check(requests[0])
        if requests[0].params.max_drafts and self.manifest.speculation is None:
            raise RequestError(
                f"num_draft_tokens is {requests[0].params.max_drafts}, but this engine checks no drafts",
                "omit num_draft_tokens and speculation, or build the engine with --speculation on",
                code="unsupported",
                param="num_draft_tokens",
            )
        if requests[0].params.prompt_logprobs is not None:
            check_scored(requests[0], requests[0].params.prompt_logprobs, scores=self.runner.scores)

    def _open(self, sequence: Sequence, constraint: Constraint | None) -> None:
        request, answers = sequence.request, self.answers
        self.sampler.add(request, answers.stop_token_ids(request), answers.thinking_limit(request), constraint)
        sequence.overlaps = bool(self.runner.depth) and self.sampler.overlaps(request.key, self.runner.chooses)
        answers.open(request, sequence.max_tokens, constraint)
        self._sequences[request.key] = sequence

    def _launch(self, events: list[Event]) -> Launched | None:
        """Plan the next step and launch it; None if there is nothing to run. Adds to `events` whom it failed."""
        scheduler = self.scheduler
        going_on = [] if scheduler.stands_still else [s for s in scheduler.decoding if not (s.unknown or s.held)]
        step = scheduler.plan(self.drafts.propose(going_on, scheduler.prefilling))
        if not step.slices:
            return None
        self._count_started(step)
        try:
            return self._stepper.launch(step)
        except Exception as error:  # whatever a runner raises, its sequences must be answered and the others served
            events += self._failed(step, error)
            return None

    def _land(self, launched: Launched) -> list[Event]:
        """Take in the tokens of a step; the last events of the answers that are over with them."""
        step, answers = launched.step, self.answers
        try:
            chosen = self._stepper.land(launched, lambda key: answers[key].stop_token_ids)
        except Exception as error:
            flying = self._flying
            return self._failed(step, error, None if flying is None or flying is launched else flying.step)
        events = list[Event]()
        for key in chosen.failed:
            events += self._fail(
                [key], self._holding.refusal(self._sequences[key]) or _engine_failed("its logits are not numbers")
            )
        for part in launched.drafted:
            if part.sequence.key in chosen.tokens:
                answers.drafted(part.sequence.key, len(part.drafts), len(chosen.tokens[part.sequence.key]) - 1)
        self.scheduler.commit(step, chosen.tokens)
        waiting = self._holding.unsettled(chosen.tokens)
        now, count = self._clock(), 0
        for taker in [taker for part in launched.scored if part.samples for taker in part.takers]:
            if taker.key in chosen.tokens:
                answers.score(taker.key, taker.scores)
        for key, tokens in chosen.tokens.items():
            taken, count = Taken(self._sequences[key], tokens, chosen.logprobs.get(key, _NONE)), count + len(tokens)
            if key in waiting:
                self._holding.hold(taken)
            else:
                events += self._take_in(taken, now)
        self.metrics.generated(count)
        return events

    def _take_in(self, taken: Taken, now: float) -> list[Event]:
        """The last event of an answer, if it is over with these tokens."""
        key = taken.sequence.key
        if (last := self.answers.take_in(self.answers[key], taken.tokens, now, taken.logprobs)) is None:
            return []
        self._forget(key)
        return [last]

    def _go_on(self) -> list[Event]:
        """Let those go on who have waited for their grammar. The last events of answers that are over with that."""
        events = list[Event]()
        for taken in self._holding.over():
            refusal = self._holding.refusal(taken.sequence)
            events += self._fail([taken.sequence.key], refusal) if refusal else self._take_in(taken, self._clock())
        return events

    def _finish(self, key: int, reason: FinishReason) -> Event:
        event = self.answers.finish(key, reason)
        self._forget(key)
        return event

    def _fail(self, keys: Iterable[int], error: TriuneError) -> list[Event]:
        events = self.answers.fail(keys, error)
        for event in events:
            self._forget(event.key, keep=False)
        return events

    def _failed(self, step: Step, error: Exception, next_step: Step | None = None) -> list[Event]:
        """Answer everyone of a step that cannot be computed, and those of the next one whose prompts may begin with its KV."""
        LOG.error("a step of %d sequences failed; each is answered with an error", len(step.slices), exc_info=error)
        self.scheduler.store.forget()
        following = next_step.slices if next_step is not None else ()
        parts = (*step.slices, *(part for part in following if 0 < part.start == part.sequence.found))
        members = (s for part in parts for s in (*part.takers, *part.sequence.siblings) if part.counts_for(s))
        return self._fail(list(dict.fromkeys(s.key for s in members)), _engine_failed(error))

    def _forget(self, key: int, *, keep: bool = True) -> None:
        """Forget a request whose answer is over, and free its slot."""
        self.scheduler.remove(self._sequences.pop(key), keep=keep)
        self.sampler.remove(key)
        self._holding.forget(key)
        self.drafts.forget(key)

    def _count_started(self, step: Step) -> None:
        prompted = 0
        for part in step.slices:
            sequence = part.sequence
            if part.first:
                for member in (*part.takers, *sequence.siblings):
                    self.answers.started(member.key, member.kv)
                if self.scheduler.store.shares and not part.scored:
                    self.metrics.looked_up(len(sequence.tokens), part.start)
            if part.start < len(sequence.request.prompt):
                stop = min(part.start + part.length, len(sequence.request.prompt))
                prompted += max(stop - max(part.start, sequence.read), 0)
                sequence.read = max(sequence.read, stop)
        if prompted:
            self.metrics.prompt(prompted)


def _engine_failed(why: object) -> TriuneError:
    hint = "see the server's log; it may be sent again"
    return TriuneError(f"the engine failed while serving this request: {why}", hint, code="engine_failed")
