"""Serves requests with vLLM behind it: tokens come from its process, and all else is done as for our own engines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from typing import Protocol

from ...constraints import Constraint
from ...errors import DeviceLost, Overloaded, RequestError, TriuneError
from ...generation.answers import Answers, Wanted, everyone
from ...generation.scoring import check_scored
from ...generation.sequence import answer_length
from ...kv.store import KvUsage
from ...manifest import EngineManifest, Limits
from ...metrics import Metrics, Snapshot
from ...request import Event, FinishReason, KvCounts, Request, TokenLogprob
from ...text.vocabulary import TokenBytes
from .asking import check, order_of
from .causes import cause_in
from .guided import Guided
from .progress import Progress
from .protocol import Abort, Failed, First, Load, Logprob, Order, Piece, Ready, Refused, Told
from .protocol import Step as Made

LOG = logging.getLogger(__name__)
_WAIT_S = 0.01  # of a step for something to happen: what other threads ask for waits so long
_TELLING = 200  # lines of its log in which the cause of its end is looked for
_PATIENCE_S = 0.005  # of a step, for all grammars together
_ENDINGS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}  # in vLLM's words; others are failures


class Engine(Protocol):
    """What is asked of vLLM's process: see `child.Host`; and of those on further machines: `machines.Spread`."""

    @property
    def problem(self) -> str: ...
    @property
    def lines(self) -> Iterable[str]: ...
    def tell(self, order: Order) -> None: ...
    def told(self, wait_s: float) -> list[Told]: ...
    def end(self) -> None: ...


class VllmGenerator:
    """See `Generator`."""

    def __init__(
        self,
        manifest: EngineManifest,
        engine: Engine,
        ready: Ready,
        token_bytes: TokenBytes,
        *,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            ready: what the engine has told of itself.
            progress: watches whether it gets on.
        """
        self._manifest, self._engine, self._ready, self._clock = manifest, engine, ready, clock
        self._load = Load()
        self.metrics = Metrics(self.snapshot())
        self._answers = Answers(manifest, token_bytes, self.metrics, clock)
        self._guided: dict[int, Guided] = {}
        self._computing: set[int] = set()  # of whom vLLM has not said the last word
        self._progress = progress or Progress()

    @property
    def limits(self) -> Limits:
        return self._manifest.limits

    @property
    def has_work(self) -> bool:
        """See `Generator.has_work`. Until vLLM has said that it has freed all, there is something to hear."""
        return bool(self._answers) or self._load.running + self._load.waiting > 0

    def start(self) -> None:
        """See `Generator.start`: it serves already."""

    def submit_group(self, requests: Items[Request], constraints: Items[Constraint | None] = ()) -> None:
        """See `Generator.submit_group`. vLLM finds by itself what their prompts have in common.

        Raises:
            DeviceLost: vLLM's process has ended.
        """
        if why := self._engine.problem:
            raise self._lost(why)
        try:
            lengths = [self._check(request, len(requests)) for request in requests]
        except TriuneError as error:
            self.metrics.refused("overloaded" if isinstance(error, Overloaded) else "invalid")
            raise
        for request, length, constraint in zip(requests, lengths, constraints or [None] * len(requests), strict=True):
            self._answers.open(request, length, constraint)
            if constraint is not None:
                self._guided[request.key] = Guided(constraint)
            self._computing.add(request.key)
            stops = [token for token in self._answers.stop_token_ids(request) if token < self._ready.vocab_size]
            self._engine.tell(order_of(request, length, stops, guided=constraint is not None))

    def abort(self, key: int, reason: FinishReason = "cancelled") -> list[Event]:
        """See `Generator.abort`."""
        return [self._finish(key, reason)] if key in self._answers else []

    def abort_id(self, request_id: str) -> list[Event]:
        """See `Generator.abort_id`."""
        return [self._finish(key, "cancelled") for key in self._answers.named(request_id)]

    def step(self, wanted: Wanted = everyone) -> list[Event]:
        """See `Generator.step`.

        Raises:
            DeviceLost: vLLM's process has ended, or makes no step.
        """
        events = [self._finish(key, "deadline") for key in self._answers.late()]
        for told in self._engine.told(_WAIT_S):
            events += self._hear(told)
        until = time.monotonic() + _PATIENCE_S
        for key in list(self._guided):
            events += self._go_on(key, until)
        self._look()
        return events + self._answers.pieces(wanted())

    def rest(self) -> None:
        """See `Generator.rest`. Whether vLLM's process lives is looked at here, too.

        Raises:
            DeviceLost: it does not.
        """
        for told in self._engine.told(0.0):
            self._hear(told)
        self._look()

    def snapshot(self) -> Snapshot:
        """See `Generator.snapshot`."""
        load, ready = self._load, self._ready
        used = min(round(load.kv_usage * ready.kv_blocks), ready.kv_blocks)
        block_bytes = self._manifest.kv_bytes_per_token * ready.block_tokens
        return Snapshot(
            decoding=load.running,
            waiting=load.waiting,
            tokens=used * ready.block_tokens,
            slots=self.limits.max_sequences,
            kv=KvUsage(blocks=ready.kv_blocks, used=used, block_tokens=ready.block_tokens),
            kv_bytes=used * block_bytes,
            kv_bytes_max=ready.kv_blocks * block_bytes,
        )

    def close(self) -> list[Event]:
        """See `Generator.close`. Who has no token yet may ask elsewhere."""
        stopping = Overloaded("the server is stopping", "send it again, to another server or later", code="stopping")
        waiting = [key for key in self._answers.keys if not self._answers[key].taken]
        events = self._fail(waiting, stopping) + [self._finish(key, "cancelled") for key in self._answers.keys]
        self._engine.end()
        return events

    def _check(self, request: Request, count: int) -> int:
        """How long the answer to a request may be at most.

        Raises:
            RequestError, TooLong, Overloaded: it cannot be served.
        """
        limits, params = self.limits, request.params
        if count > limits.max_sequences:
            raise RequestError(
                f"{count} sequences are asked for, but this engine serves {limits.max_sequences} at once",
                f"ask for at most {limits.max_sequences}",
                code="too_many_sequences",
                param="n",
            )
        self._answers.check(request)
        check(params)
        if params.prompt_logprobs is not None:
            check_scored(request, params.prompt_logprobs, scores=True)
        if (here := len(self._answers)) >= limits.max_sequences + limits.max_queue:
            said = f"{here - limits.max_sequences:,} requests are waiting already, the limit is {limits.max_queue:,}"
            raise Overloaded(said, "send it again later")
        return answer_length(request, limits.max_length)

    def _hear(self, told: Told) -> list[Event]:
        """The last events of answers that are over with what vLLM has told."""
        match told:
            case Made():
                self._progress.made(told.steps)
                self._load = told.load
                self.metrics.generated(sum(len(piece.tokens) for piece in told.pieces))
                return [event for piece in told.pieces for event in self._take(piece)]
            case Refused():
                self._computing.discard(told.key)
                error = RequestError(f"vLLM does not take this request: {told.why}", "see docs/vllm.md", code="unsupported")
                return self._fail([told.key] if told.key in self._answers else [], error)
            case Failed():
                raise self._lost(told.why)
            case _:
                raise self._lost(f"it says what nobody asked: {told!r:.200}")

    def _take(self, piece: Piece) -> list[Event]:
        key = piece.key
        if piece.finish is not None:
            self._computing.discard(key)
        if key not in self._answers:
            return []
        if piece.first is not None:
            self._begin(key, piece.first)
        logprobs = [_token_logprob(*pair) for pair in zip(piece.tokens, piece.logprobs, strict=False)]
        if (guided := self._guided.get(key)) is None:
            return self._take_in(key, piece.tokens, logprobs, piece.finish)
        guided.add(piece.tokens, logprobs, piece.finish)
        return []

    def _take_in(self, key: int, tokens: Items[int], logprobs: Items[TokenLogprob], finish: str | None) -> list[Event]:
        """The last event of an answer, if it is over with these tokens, or for vLLM."""
        last = self._answers.take_in(self._answers[key], tokens, self._clock(), logprobs) if tokens else None
        if last is not None:
            self._forget(key)
            return [last]
        if finish is None:
            return []
        if finish in _ENDINGS:
            return [self._finish(key, _ENDINGS[finish])]
        hint = "see the server's log; it may be sent again"
        return self._fail([key], TriuneError(f"the engine has ended this answer: {finish}", hint, code="engine_failed"))

    def _go_on(self, key: int, until: float) -> list[Event]:
        """Take in what has come of an answer whose form is prescribed, as far as its grammar has settled it."""
        guided = self._guided[key]
        for token, logprob, finish in guided.settled(until):
            if over := self._take_in(key, (token,), (logprob,) if logprob else (), finish):
                return over
        if not guided.error:
            return []
        param = self._answers[key].request.guide_input or None
        return self._fail([key], RequestError(guided.error, "simplify it", code="unsupported", param=param))

    def _begin(self, key: int, first: First) -> None:
        """The prompt of a request has been computed."""
        served, block = self._answers[key], self._ready.block_tokens
        prompt = len(served.request.prompt)
        blocks, reused = -(-prompt // block), first.cached // block
        kv = KvCounts(new_blocks=blocks - reused, reused_blocks=reused, reused_tokens=first.cached)
        self._answers.started(key, kv, min(served.clocking.arrived + first.queued_s, self._clock()))
        if first.scores:
            self._answers.score(key, [_token_logprob(token, of, rank) for token, rank, of in first.scores])
        self.metrics.prompt(prompt - first.cached)
        self.metrics.looked_up(prompt, first.cached)

    def _look(self) -> None:
        """Raise DeviceLost where vLLM is not what it was."""
        if why := self._engine.problem:
            raise self._lost(why)
        if (stood_s := self._progress.stood_still(busy=self.has_work)) is not None:
            raise self._lost(f"it has made no step for {stood_s:.0f} s, with {len(self._answers)} requests under way")

    def _lost(self, why: str) -> DeviceLost:
        self._engine.end()  # and have its last words
        cause = cause_in(list(self._engine.lines)[-_TELLING:])
        return DeviceLost(f"vLLM runs no more: {why}" + (f" ({cause})" if cause else ""))

    def _finish(self, key: int, reason: FinishReason) -> Event:
        event = self._answers.finish(key, reason)
        self._forget(key)
        return event

    def _fail(self, keys: Iterable[int], error: TriuneError) -> list[Event]:
        events = self._answers.fail(keys, error)
        for event in events:
            self._forget(event.key)
        return events

    def _forget(self, key: int) -> None:
        """An answer is over, whatever vLLM still does for it."""
        self._guided.pop(key, None)
        if key in self._computing:
            self._computing.discard(key)
            self._engine.tell(Abort(key=key))


def _token_logprob(token: int, of: Logprob, rank: int | None = None) -> TokenLogprob:
    return TokenLogprob(token, of[0], of[1], rank)
