"""Tokens in, answers out: stop rules, exact text, thinking kept apart, deadlines, times. Knows no engine and no thread.

Whatever generates tokens opens a request here, hands its tokens in one after the other, and is told when the answer is over.
The text is cut only when somebody is to be told of it, except where it decides itself when the answer ends.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..constraints import Constraint
from ..errors import RequestError, TriuneError
from ..manifest import EngineManifest
from ..metrics import Clocking, Metrics
from ..request import Event, FinishReason, KvCounts, Request, Times, TokenLogprob
from ..text.cutter import TextCutter
from ..text.reasoning import Divider, ThinkingLimit
from ..text.vocabulary import TokenBytes
from .pending import Pending


class Everyone(Container[int]):
    """All keys."""

    def __contains__(self, key: object) -> bool:
        return True


EVERYONE = Everyone()
Wanted = Callable[[], Container[int]]  # asked when a step is over: whose pieces can go out now


def everyone() -> Container[int]:
    """See `Wanted`: all of them."""
    return EVERYONE


@dataclass(eq=False, slots=True)
class Served:
    """All that is kept of one request, besides its KV memory and its part in sampling."""

    request: Request
    max_tokens: int
    constraint: Constraint | None
    stop_token_ids: frozenset[int]
    cutter: TextCutter
    clocking: Clocking
    pending: Pending = field(default_factory=Pending)
    unread: list[int] = field(default_factory=list)  # tokens whose text has not been cut
    taken: int = 0  # tokens in all
    watched: bool = False  # its text or its constraint may end it


class Answers:
    """The answers being made. Every request that is opened ends in exactly one last event."""

    def __init__(self, manifest: EngineManifest, token_bytes: TokenBytes, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._manifest, self._token_bytes, self._metrics, self._clock = manifest, token_bytes, metrics, clock
        self._served: dict[int, Served] = {}
        self._news: dict[int, None] = {}  # streams with tokens that nobody was told of, in the order in which they came
        self._deadlines: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._served)

    def __contains__(self, key: object) -> bool:
        return key in self._served

    def __getitem__(self, key: int) -> Served:
        return self._served[key]

    @property
    def keys(self) -> list[int]:
        """Of all requests that are being served."""
        return list(self._served)

    def named(self, request_id: str) -> list[int]:
        """The keys of the requests that their client named `request_id`."""
        return [key for key, served in self._served.items() if request_id and served.request.id == request_id]

    def check(self, request: Request) -> None:
        """Refuse what no answer can be made for.

        Raises:
            RequestError: empty prompt, a token id outside the vocabulary, or a thinking budget for a model that does not think.
        """
        size = self._manifest.vocab_size
        if not request.prompt:
            hint = "send text_input or messages with some text"
            raise RequestError("the prompt has no tokens", hint, code="missing_value", param="prompt")
        if not _below(request, size):
            raise _outside("prompt", next(t for t in request.prompt if not 0 <= t < size), size)
        biased = (token for token, _ in request.params.logit_bias)
        banned = (token for word in request.params.bad_words for token in word)
        named = {"logit_bias": biased, "bad_words": banned, "stop_token_ids": request.params.stop_token_ids}
        for what, tokens in named.items():
            outside = next((t for t in tokens if not 0 <= t < size), None)
            if outside is not None:
                raise _outside(what, outside, size)
        if request.params.thinking_budget is not None and self._manifest.reasoning is None:
            said = "thinking_budget is given, but this model does not think"
            raise RequestError(said, "omit thinking_budget", code="unsupported", param="thinking_budget")

    def stop_token_ids(self, request: Request) -> frozenset[int]:
        """The tokens after which an answer to `request` is over."""
        own = () if request.params.ignore_eos else self._manifest.stop_token_ids
        return frozenset((*request.params.stop_token_ids, *own))

    def thinking_limit(self, request: Request) -> ThinkingLimit | None:
        """What closes the answer's thinking after so many tokens, if that is asked for."""
        markers, budget = self._manifest.reasoning, request.params.thinking_budget
        if markers is None or budget is None:
            return None
        return ThinkingLimit(markers, self._token_bytes, opened=request.thinking_open, budget=budget)

    def open(self, request: Request, max_tokens: int, constraint: Constraint | None = None) -> None:
        """Expect the tokens of an answer to `request`.

        Args:
            max_tokens: of the answer; the request's own or what there is room for.
        """
        params, markers = request.params, self._manifest.reasoning
        divider = Divider(markers, opened=request.thinking_open) if markers and request.separate_reasoning else None
        cutter = TextCutter(self._token_bytes, params.stop, params.min_tokens, divider, continues=request.continues)
        clocking = Clocking(self._clock())
        stops = self.stop_token_ids(request)
        watched = bool(params.stop) or constraint is not None
        self._served[request.key] = Served(request, max_tokens, constraint, stops, cutter, clocking, watched=watched)
        if request.deadline is not None:
            self._deadlines[request.key] = request.deadline

    def started(self, key: int, kv: KvCounts | None = None, at: float | None = None) -> None:
        """The prompt of a request is about to be computed.

        Args:
            kv: what it takes of the KV memory, if that is known.
            at: when that was, if it is told later.
        """
        served = self._served[key]
        served.pending.kv = kv or served.pending.kv
        self._metrics.started(served.clocking, self._clock() if at is None else at)

    def score(self, key: int, scores: Iterable[TokenLogprob]) -> None:
        """The log probabilities of a prompt's tokens from the second on: they go out with the first piece of the answer."""
        self._served[key].pending.scores = tuple(scores)

    def take_in(self, served: Served, tokens: Sequence[int], now: float, logprobs: Sequence[TokenLogprob] = ()) -> Event | None:
        """Add tokens to an answer; its last event, if the answer is over with one of them: those behind it count for nothing.

        Args:
            logprobs: of the tokens, if they are asked for.
        """
        request, pending, clocking = served.request, served.pending, served.clocking
        if clocking.latest is not None:
            self._metrics.next_token(now - clocking.latest)
        clocking.latest = now
        if clocking.first is None:
            self._metrics.first_token(clocking, now)
        for number, token in enumerate(tokens):
            served.taken += 1
            pending.new_tokens += 1
            if logprobs:
                pending.logprobs.append(logprobs[number])
            if token in served.stop_token_ids:
                return self.finish(request.key, "stop")
            served.unread.append(token)
            if served.watched and self._complete(served, latest=number == len(tokens) - 1):
                return self.finish(request.key, "stop")
            if served.taken >= served.max_tokens:
                return self.finish(request.key, "length")
        if request.stream:
            self._news[request.key] = None
        return None

    def _complete(self, served: Served, *, latest: bool) -> bool:
        """Whether an answer is over by its text.

        Args:
            latest: nothing was chosen behind its last token yet, so that the constraint's state is that after it.
        """
        if served.request.params.stop:
            self._read(served)
            if served.pending.cut.stop_reason is not None:
                return True
        return latest and served.constraint is not None and served.constraint.finished

    def pieces(self, wanted: Container[int] = EVERYONE) -> list[Event]:
        """What can be handed out now of the streams that are `wanted`."""
        found = []
        for key in [key for key in self._news if key in wanted]:
            del self._news[key]
            served = self._served[key]
            self._read(served)
            if served.pending.cut.has_text:
                found.append(Event(key, served.pending.take(self._times(served))))
        return found

    def drafted(self, key: int, drafts: int, accepted: int) -> None:
        """A run has checked so many drafts of an answer."""
        pending = self._served[key].pending
        pending.drafted, pending.accepted = pending.drafted + drafts, pending.accepted + accepted
        self._metrics.drafted(drafts, accepted)

    def finish(self, key: int, reason: FinishReason) -> Event:
        """End an answer: its last piece."""
        served = self._served[key]
        self._read(served)
        if served.pending.cut.stop_reason is None:  # else what the cutter holds is the stop string and beyond
            served.pending.add(served.cutter.finish())
        self._forget(served, reason)
        return Event(key, served.pending.take(self._times(served), reason))

    def discard(self, key: int) -> None:
        """Forget a request without a word, if it was opened: its caller has been told that it is refused."""
        self._served.pop(key, None)
        self._deadlines.pop(key, None)

    def fail(self, keys: Iterable[int], error: TriuneError) -> list[Event]:
        """End answers with an error."""
        events = []
        for key in keys:
            self._forget(self._served[key], "error")
            events.append(Event(key, error))
        return events

    def late(self) -> list[int]:
        """The requests whose deadline has passed."""
        if not self._deadlines:
            return []
        now = self._clock()
        return [key for key, deadline in self._deadlines.items() if deadline < now]

    def _read(self, served: Served) -> None:
        """Cut the text of the tokens that have come."""
        if served.unread:
            served.pending.add(served.cutter.push(*served.unread))
            served.unread.clear()

    def _times(self, served: Served) -> Times | None:
        return served.clocking.times() if served.request.timed else None

    def _forget(self, served: Served, reason: FinishReason) -> None:
        key, served.clocking.tokens = served.request.key, served.taken
        del self._served[key]
        self._news.pop(key, None)
        self._deadlines.pop(key, None)
        self._metrics.finished(served.clocking, reason, self._clock())


def _below(request: Request, size: int) -> bool:
    """Whether all tokens of the prompt, which has some, are of a vocabulary of `size`."""
    try:
        tokens = np.frombuffer(request.packed, np.uint32)  # of which negative ones are the greatest
    except OverflowError:
        return False
    return int(tokens.max()) < size


def _outside(what: str, token: int, size: int) -> RequestError:
    said = f"{what} has token id {token}, the vocabulary is 0 to {size - 1:,}"
    return RequestError(said, code="invalid_value", param=what)
