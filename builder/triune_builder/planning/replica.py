"""One replica under a load: the scheduler of the runtime as a discrete-event model. Pure numbers; knows no model.

As runtime/triune_runtime/generation/scheduler.py does it: prompts in the order they came, as many in a step as its budget has
tokens for, at most one of them half computed; the decoding sequences go on in every step, but stand still for some while
more are about to start; where KV memory ends the youngest gives its own back and is computed again. Not modelled: shared
prefixes, drafts, answers that are left, slots (while one between two that decode is free, these do not stand still). Steps in
which nobody comes or goes are counted in one go.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

_MOST_CHUNKS = 4  # of prompts between two steps in which the decoding sequences go on


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a step: `linear[tokens]`, `overhead[decoding sequences]`, and so much for each token or pair attended to, and
    for each prompt that has a part in it, where prompts are computed one after the other."""

    linear: Sequence[float]
    overhead: Sequence[float]
    context: float
    pair: float
    prompt: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a replica takes."""

    sequences: int
    step_tokens: int
    chunk: int  # prompts are cut at multiples of it
    kv_tokens: int


@dataclass
class Served:
    """What became of each request: seconds of its first and its last token; and the times between tokens, with how often."""

    first: list[float]
    last: list[float]
    gaps: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sent_back: int = 0
    busy: float = 0.0


def serve(arrival: Sequence[float], prompt: Sequence[int], output: Sequence[int], pace: Pace, limits: Limits) -> Served:
    """Run requests, in the order of `arrival`, to their ends. Each fits `limits.kv_tokens` by itself."""
    return _Replica(arrival, prompt, output, pace, limits).run()


class _Replica:
    """The state between two steps. A sequence that decodes is (round of its last token, its number) in a heap: all decoding
    sequences get a token in each round, so what is left of each need not be counted down."""

    def __init__(
        self, arrival: Sequence[float], prompt: Sequence[int], output: Sequence[int], pace: Pace, limits: Limits
    ) -> None:
        self._arrival, self._output, self._pace, self._limits = arrival, output, pace, limits
        self._prompt = list(prompt)  # of one that was sent back: all tokens that it has
        self._done = [0] * len(prompt)  # of these, computed
        self._left = list(output)  # tokens still to come
        self._served = Served([0.0] * len(prompt), [0.0] * len(prompt))
        self._next, self._now, self._round = 0, 0.0, 0
        self._queue, self._half = deque[int](), list[int]()
        self._decoding: list[tuple[int, int]] = []
        self._context = 0  # KV tokens of the decoding sequences
        self._held = 0  # of the one that is half computed
        self._latest = 0.0  # when the decoding sequences got their last token
        self._joined: list[float] = []  # when those got it that joined since
        self._seen: dict[int, float] = {}  # when those got it that were sent back
        self._prompted = 0

    def run(self) -> Served:
        arrival, count = self._arrival, len(self._arrival)
        while self._next < count or self._queue or self._half or self._decoding:
            if not (self._queue or self._half or self._decoding):
                self._now = max(self._now, arrival[self._next])
            while self._next < count and arrival[self._next] <= self._now:
                self._queue.append(self._next)
                self._next += 1
            if self._half or self._admits():
                self._step()
            else:
                self._rounds()
        return self._served

    def _admits(self, taken: int = 0, growth: int = 0) -> bool:
        """Whether the first who waits gets a slot and memory for its prompt.

        Args:
            taken: how many others did in this step.
            growth: tokens that the decoding sequences get in it.
        """
        if not self._queue or len(self._decoding) + len(self._half) + taken >= self._limits.sequences:
            return False
        return self._context + growth + self._held + self._prompt[self._queue[0]] <= self._limits.kv_tokens

    def _rounds(self) -> None:
        """Rounds of the decoding sequences up to the next event: one ends, one comes, or memory does."""
        batch, pace = len(self._decoding), self._pace
        self._prompted = 0
        if self._context + batch > self._limits.kv_tokens:
            self._send_back()
            return
        rounds = min(self._decoding[0][0] - self._round, (self._limits.kv_tokens - self._context) // batch)
        base = pace.linear[batch] + pace.overhead[batch] + pace.context * self._context
        growth = pace.context * batch
        if self._joined:
            rounds = 1  # their time since the last token is their own
        elif not self._queue and self._next < len(self._arrival):
            wait = self._arrival[self._next] - self._now
            b = base - growth / 2
            steps = (math.sqrt(b * b + 2 * growth * wait) - b) / growth if growth > 0 else wait / base
            rounds = max(1, min(rounds, math.ceil(steps)))
        seconds = rounds * base + growth * rounds * (rounds - 1) / 2
        self._decoded(rounds, seconds, self._now + seconds)

    def _decoded(self, rounds: int, seconds: float, until: float) -> None:
        """Count rounds that end at `until`; who has all its tokens leaves."""
        served, batch = self._served, len(self._decoding)
        old = batch - len(self._joined)
        if rounds == 1:
            if old:
                served.gaps.append(until - self._latest)
                served.counts.append(old)
            for joined in self._joined:
                served.gaps.append(until - joined)
                served.counts.append(1)
        else:
            served.gaps.append((until - self._latest) / rounds)
            served.counts.append(rounds * batch)
        self._joined = []
        served.busy += seconds
        self._now = self._latest = until
        self._round += rounds
        self._context += rounds * batch
        decoding = self._decoding
        while decoding and decoding[0][0] <= self._round:
            _, number = heappop(decoding)
            served.last[number] = until
            self._context -= self._prompt[number] + self._left[number] - 1

    def _step(self) -> None:
        """A step with prompts, and a round of the decoding sequences unless they stand still."""
        batch = len(self._decoding)
        still = self._stands_still(batch)
        if batch and not still and self._context + self._held + batch > self._limits.kv_tokens:
            self._send_back()
            return
        context = self._context if not still else 0
        batch = 0 if still else batch
        tokens, parts, pairs, whole = self._prompts(batch)
        self._prompted = self._prompted + tokens if still else 0
        pace = self._pace
        attended = pace.context * context + pace.pair * pairs
        seconds = pace.linear[batch + tokens] + pace.overhead[batch] + attended + pace.prompt * parts
        until = self._now + seconds
        if batch:
            self._decoded(1, seconds, until)
        else:
            self._served.busy += seconds
            self._now = until
        for number in whole:
            self._join(number, until)

    def _stands_still(self, batch: int) -> bool:
        if not batch:
            return False
        starting = len(self._half) + min(len(self._queue), self._limits.sequences - batch - len(self._half))
        return self._prompted <= (min(starting // batch, _MOST_CHUNKS) - 2) * self._limits.step_tokens

    def _prompts(self, batch: int) -> tuple[int, int, float, list[int]]:
        """Take parts of prompts into a step: tokens, parts, pairs of a query and a key, and whose prompt is complete then."""
        budget, tokens, parts, pairs, whole = self._limits.step_tokens, 0, 0, 0.0, list[int]()
        while budget > 0:
            if self._half:
                number = self._half[0]
            elif self._admits(len(whole), batch):
                number = self._queue[0]
            else:
                break
            left = self._prompt[number] - self._done[number]
            part = left if left <= budget else self._cut(self._done[number], budget)
            if part <= 0:
                break  # what is left of the budget does not reach where it may be cut
            if not self._half:
                self._half.append(self._queue.popleft())
                self._held += self._prompt[number]
            pairs += part * (self._done[number] + part / 2)
            self._done[number] += part
            tokens, parts, budget = tokens + part, parts + 1, budget - part
            if part == left:
                self._half.pop()
                whole.append(number)
        return tokens, parts, pairs, whole

    def _cut(self, done: int, budget: int) -> int:
        """Tokens up to the last multiple of a chunk that the budget reaches."""
        return (done + budget) // self._limits.chunk * self._limits.chunk - done

    def _join(self, number: int, now: float) -> None:
        """Its prompt is computed, and with it came a token."""
        served, left = self._served, self._left[number]
        self._held -= self._prompt[number]
        if left == self._output[number]:
            served.first[number] = now
        else:
            served.gaps.append(now - self._seen.pop(number))
            served.counts.append(1)
        if left == 1:
            served.last[number] = now
            return
        self._context += self._prompt[number]
        heappush(self._decoding, (self._round + left - 1, number))
        self._joined.append(now)

    def _send_back(self) -> None:
        """Let the youngest wait again, before all others, with the tokens it has."""
        decoding = self._decoding
        at = max(range(len(decoding)), key=lambda i: decoding[i][1])
        until, number = decoding[at]
        decoding[at] = decoding[-1]
        decoding.pop()
        heapify(decoding)
        left = until - self._round
        had = self._left[number] - left
        self._context -= self._prompt[number] + had - 1
        self._prompt[number] += had
        self._left[number], self._done[number] = left, 0
        self._seen[number] = self._joined.pop() if self._joined else self._latest  # who joined last is the youngest
        self._queue.appendleft(number)
        self._served.sent_back += 1
