"""The loop's body: plan, run, sample, commit. No threads, no sockets, no Triton; time comes in as a function."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items

from ..drafting.checking import Checker
from ..drafting.speculator import Speculator
from ..errors import Overloaded, RequestError, TriuneError
from ..manifest import EngineManifest
from ..metrics import Metrics, Snapshot
from ..request import Event, FinishReason, Request, Times, TokenLogprob
from ..runner import Runner
from ..sampling.host import Sampler
from ..text.cutter import TextCutter
from ..text.reasoning import Divider, ThinkingLimit
from ..text.vocabulary import TokenBytes
from .groups import check_group
from .pending import Pending
from .scheduler import Scheduler, Slice, Step
from .sequence import Sequence

LOG = logging.getLogger(__name__)


class Engine:
    """Serves requests step by step. Every accepted request ends in exactly one last event."""

    def __init__(
        self,
        manifest: EngineManifest,
        runner: Runner,
        token_bytes: TokenBytes,
        *,
        clock: Callable[[], float] = time.monotonic,
        speculator: Speculator | None = None,
    ) -> None:
        """
        Args:
            speculator: by default with all that the engine can do.
        """
        self.manifest = manifest
        self.runner = runner
        self.scheduler = Scheduler(manifest.limits)
        self.sampler = Sampler(manifest.vocab_size)
        self.metrics = Metrics(self.snapshot())
        self._token_bytes = token_bytes
        self._clock = clock
        self._speculator = speculator or Speculator.of_engine(manifest, runner, self.sampler, clock)
        self._checker = Checker(runner, self.sampler, self._speculator, clock)
        self._answers: dict[int, Pending] = {}

    @property
    def has_work(self) -> bool:
        """Whether a step would run something."""
        return bool(self._answers)

    def submit(self, request: Request) -> None:
        """See `submit_group`: a group of one."""
        self.submit_group((request,))

    def submit_group(self, requests: Items[Request]) -> None:
        """Queue requests for one prompt, which is computed once; their keys must not be those of others being served.

        Raises:
            RequestError: empty prompt, a token id outside the vocabulary, a thinking budget for a model that does not think,
                or more requests than the engine has slots.
            TooLong: prompt and max_tokens do not fit the engine.
            Overloaded: the queue is full.
        """
        for request in requests:
            assert request.key not in self._answers, f"request key {request.key} is in use"
        try:
            check_group(requests, self.manifest.limits)
            self._check(requests[0])
            leader = self.scheduler.add(requests[0], requests[1:])
        except TriuneError as error:
            self.metrics.refused("overloaded" if isinstance(error, Overloaded) else "invalid")
            raise
        members = leader.members
        try:
            opened = {member.key: self._open(member) for member in members}
        except BaseException:  # nothing of a request may stay behind that its caller believes refused
            for member in members:
                self.scheduler.remove(member)
            raise
        self._answers |= opened
        for member in members:
            self.metrics.arrived(member.key, self._clock())

    def abort(self, key: int, reason: FinishReason = "cancelled") -> list[Event]:
        """End a request now and free its slot; nothing if it is not being served any more."""
        return [self._finish(self._answers[key], reason)] if key in self._answers else []

    def abort_id(self, request_id: str) -> list[Event]:
        """End every request that its client named `request_id`: one event each."""
        keys = [key for key, answer in self._answers.items() if request_id and answer.sequence.request.id == request_id]
        return [event for key in keys for event in self.abort(key)]

    def close(self) -> list[Event]:
        """End everything: who has part of an answer gets the rest of that part, who still waits may ask elsewhere."""
        waiting = [member for leader in self.scheduler.waiting for member in leader.members]
        refused = self._fail(waiting, Overloaded("the server is stopping", "send it again, to another server or later"))
        return refused + [event for key in list(self._answers) for event in self.abort(key)]

    def step(self) -> list[Event]:
        """Run one step; the pieces of answers that it gave."""
        events = self._expire()
        going_on = [] if self.scheduler.stands_still else self.scheduler.decoding
        step = self.scheduler.plan(self._speculator.propose(going_on, self.scheduler.prefilling))
        if not step.slices:
            return events
        self._count_started(step)
        try:
            chosen = self._checker.compute(step, lambda key: self._answers[key].stop_token_ids)
        except Exception as error:  # whatever a runner raises, its sequences must be answered and the others served
            LOG.exception("a step of %d sequences failed; each is answered with an error", len(step.slices))
            failed = [member for part in step.slices for member in part.sequence.members]
            return events + self._fail(failed, _engine_failed(error))
        sampling = [member for part in step.slices if part.samples for member in part.sequence.members]
        for sequence in sampling:
            if sequence.key not in chosen:
                constraint = sequence.request.constraint
                why = constraint.error if constraint is not None else ""
                events += self._fail([sequence], _engine_failed(why or "its logits are not numbers"))
        self.scheduler.commit(step, {key: [token.token_id for token in tokens] for key, tokens in chosen.items()})
        now = self._clock()
        self.metrics.prompt(sum(part.length for part in step.slices if part.start < len(part.sequence.request.prompt)))
        for part in step.slices:
            if part.drafts and part.sequence.key in chosen:
                self._count_drafts(part, len(chosen[part.sequence.key]) - 1)
        for key, tokens in chosen.items():
            for token in tokens:
                if key in self._answers:  # else it has ended, and what was chosen beyond counts for nothing
                    events += self._take_in(self._answers[key], token, now, latest=token is tokens[-1])
        return events

    def snapshot(self) -> Snapshot:
        """How full the engine is."""
        scheduler, limits = self.scheduler, self.manifest.limits
        return Snapshot(
            decoding=len(scheduler.decoding),
            prefilling=len(scheduler.running) - len(scheduler.decoding),
            waiting=scheduler.queued,
            tokens=sum(sequence.computed for sequence in scheduler.running),
            slots=limits.max_sequences,
            max_length=limits.max_length,
            kv_bytes=sum(self.manifest.kv_bytes(sequence.computed) for sequence in scheduler.running),
            kv_bytes_max=limits.max_sequences * self.manifest.kv_bytes(limits.max_length),
        )

    def _open(self, sequence: Sequence) -> Pending:
        """What a request's answer needs from its first token on."""
        request, params, markers = sequence.request, sequence.request.params, self.manifest.reasoning
        own = () if params.ignore_eos else self.manifest.stop_token_ids
        stop_token_ids = frozenset((*params.stop_token_ids, *own))
        divider = limit = None
        if markers is not None and request.separate_reasoning:
            divider = Divider(markers, opened=request.thinking_open)
        if markers is not None and params.thinking_budget is not None:
            limit = ThinkingLimit(markers, self._token_bytes, opened=request.thinking_open, budget=params.thinking_budget)
        cutter = TextCutter(self._token_bytes, params.stop, params.min_tokens, divider)
        self.sampler.add(request, stop_token_ids, limit)
        return Pending(sequence, cutter, stop_token_ids)

    def _check(self, request: Request) -> None:
        size = self.manifest.vocab_size
        if not request.prompt:
            raise RequestError("the prompt has no tokens", "send text_input or messages with some text")
        biased = (token for token, _ in request.params.logit_bias)
        banned = (token for word in request.params.bad_words for token in word)
        named = {"prompt": request.prompt, "logit_bias": biased, "bad_words": banned}
        for what, tokens in {**named, "stop_token_ids": request.params.stop_token_ids}.items():
            outside = next((t for t in tokens if not 0 <= t < size), None)
            if outside is not None:
                raise RequestError(f"{what} has token id {outside}, the vocabulary is 0 to {size - 1:,}")
        if request.params.max_drafts and self.manifest.speculation is None:
            raise RequestError(
                f"num_draft_tokens is {request.params.max_drafts}, but this engine checks no drafts",
                "omit num_draft_tokens and speculation, or build the engine with --speculation on",
            )
        if request.params.thinking_budget is not None and self.manifest.reasoning is None:
            raise RequestError("thinking_budget is given, but this model does not think", "omit thinking_budget")

    def _take_in(self, answer: Pending, token: TokenLogprob, now: float, *, latest: bool) -> list[Event]:
        """Add a token to an answer; the piece that can be handed out because of it.

        Args:
            latest: nothing was chosen behind it yet, so that the constraint's state is that after this token.
        """
        sequence, params = answer.sequence, answer.sequence.request.params
        answer.new_tokens += 1
        answer.taken += 1
        self.metrics.token(sequence.key, now)
        if params.logprobs is not None:
            answer.logprobs.append(token)
        if token.token_id in answer.stop_token_ids:
            return [self._finish(answer, "stop")]
        answer.add(answer.cutter.push(token.token_id))
        constraint = sequence.request.constraint
        if answer.cut.stop_reason is not None or (latest and constraint is not None and constraint.finished):
            return [self._finish(answer, "stop")]
        if answer.taken >= sequence.max_tokens:
            return [self._finish(answer, "length")]
        if not answer.cut.has_text or not sequence.request.stream:
            return []
        return [Event(sequence.key, answer.take(self._times(sequence)))]

    def _finish(self, answer: Pending, reason: FinishReason) -> Event:
        if answer.cut.stop_reason is None:  # else what the cutter holds is the stop string and beyond
            answer.add(answer.cutter.finish())
        chunk = answer.take(self._times(answer.sequence), reason)
        self._forget(answer.sequence, reason)
        return Event(answer.sequence.key, chunk)

    def _times(self, sequence: Sequence) -> Times | None:
        return self.metrics.times(sequence.key) if sequence.request.timed else None

    def _fail(self, sequences: Iterable[Sequence], error: TriuneError) -> list[Event]:
        events = []
        for sequence in sequences:
            self._forget(sequence, "error")
            events.append(Event(sequence.key, error))
        return events

    def _forget(self, sequence: Sequence, reason: FinishReason) -> None:
        self.scheduler.remove(sequence)
        self.sampler.remove(sequence.key)
        self._speculator.forget(sequence.key)
        del self._answers[sequence.key]
        self.metrics.finished(sequence.key, reason, self._clock())

    def _expire(self) -> list[Event]:
        now = self._clock()
        late = [
            a for a in self._answers.values() if a.sequence.request.deadline is not None and a.sequence.request.deadline < now
        ]
        return [self._finish(answer, "deadline") for answer in late]

    def _count_drafts(self, part: Slice, accepted: int) -> None:
        answer = self._answers[part.sequence.key]
        answer.drafted, answer.accepted = answer.drafted + len(part.drafts), answer.accepted + accepted
        self.metrics.drafted(len(part.drafts), accepted)

    def _count_started(self, step: Step) -> None:
        now = self._clock()
        for part in step.slices:
            for member in part.sequence.members if part.start == 0 else ():
                self.metrics.started(member.key, now)


def _engine_failed(why: object) -> TriuneError:
    return TriuneError(f"the engine failed while serving this request: {why}", "see the server's log; it may be sent again")
