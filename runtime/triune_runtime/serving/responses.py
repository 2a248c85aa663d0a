"""The sequences of one request -> its responses, in the form that the client's contract has for them.

- TensorRT-LLM: a response belongs to one sequence, which `batch_index` and `sequence_index` name, streamed or not.
- Ours: the same where it is streamed; whole answers come in one response whose tensors have an element a sequence.
- vLLM: in every response the tensors have an element a sequence.

A request of which nothing is streamed is answered whole or with an error, never with both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..contracts.outputs import OUTPUTS
from ..errors import TriuneError
from ..options.wire import Options
from ..outbox import Item, Sink
from ..request import Chunk, Request
from ..text.vocabulary import TokenBytes
from .combining import stacked
from .sequence_tensors import SequenceTensors, byte_ranges, vllm_reason
from .tensors import Arrays, strings, tensors

Reply = Callable[[Arrays | TriuneError, bool], None]  # (tensors or error, whether it is the last)


@dataclass(eq=False)
class _Row:
    """One prompt and the sequences that continue it."""

    options: Options
    number: int
    members: list[_Member] = field(default_factory=list)

    @property
    def gathers(self) -> bool:
        """Whether nothing can be sent before all have ended."""
        options = self.options
        several = options.best_of > 1 and not options.batched
        return not options.stream and (several or options.best_of > options.n)


@dataclass(eq=False)
class _Member:
    tensors: SequenceTensors
    index: int
    watch: Callable[[], None]
    reason: str | None = None  # why it has ended
    held: Arrays | None = None  # its one chunk, while others are waited for

    @property
    def ended(self) -> bool:
        return self.reason is not None


class Responses:
    """Makes the responses to one request. Sinks are called on one thread, `fail` on any."""

    def __init__(self, token_bytes: TokenBytes, reply: Reply, abort: Callable[[int], None]) -> None:
        """
        Args:
            abort: ends the sequence of a key; for those whose client has got an error instead.
        """
        self._token_bytes, self._reply, self._abort = token_bytes, reply, abort
        self._rows: list[_Row] = []
        self._whole: list[Arrays] = []  # of a request that is not streamed, until all of it is there
        self._closed = False
        self._lock = threading.Lock()  # guards `_closed` with the reply that closes

    def expect(
        self, requests: Sequence[Request], options: Options, number: int, watches: Sequence[Callable[[], None]]
    ) -> list[Sink]:
        """Where the items of a row's requests go.

        Args:
            watches: one a request; called after each of its chunks but the last.
        """
        row = _Row(options, number)
        self._rows.append(row)
        for index, (request, watch) in enumerate(zip(requests, watches, strict=True)):
            tensors = SequenceTensors(request, options, self._token_bytes, first=index == 0)
            row.members.append(_Member(tensors, index, watch))
        return [self._sink(row, member) for member in row.members]

    def fail(self, error: TriuneError) -> None:
        """Answer the whole request with an error and end what is left of it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._reply(error, True)
        for row in self._rows:
            for member in row.members:
                if not member.ended:
                    self._abort(member.tensors.key)

    def _sink(self, row: _Row, member: _Member) -> Sink:
        def take(item: Item) -> None:
            if isinstance(item, TriuneError):
                member.reason = "error"
                self.fail(item)
                return
            for arrays, last in self._take(row, member, item):
                with self._lock:
                    if self._closed:
                        return
                    self._closed = last
                    self._reply(arrays, last)
            if not member.ended and not self._closed:
                member.watch()

        return take

    def _take(self, row: _Row, member: _Member, chunk: Chunk) -> list[tuple[Arrays, bool]]:
        """The responses that a chunk makes possible, and whether each is the last."""
        arrays = member.tensors.of(chunk)
        member.reason = chunk.finish_reason
        if row.gathers:
            member.held = arrays
            if not all(one.ended for one in row.members):
                return []
            ready = self._best(row)
        elif row.options.vllm and row.options.n > 1:
            ready = [self._spread(row, member, arrays)]
        else:
            ready = [_placed(arrays, row, member.index) if row.options.batched or row.options.n > 1 else arrays]
        over = all(one.ended for each in self._rows for one in each.members)
        if not any(each.options.stream for each in self._rows):
            self._whole += ready
            ready = self._whole if over else []
        return [(one, over and one is ready[-1]) for one in ready]

    def _best(self, row: _Row) -> list[Arrays]:
        """Of a row that has ended: the answers that are to come back, best first where they were chosen."""
        members = row.members
        if row.options.best_of > row.options.n:
            members = sorted(members, key=lambda one: -one.tensors.logprob)[: row.options.n]
        held = [one.held for one in members if one.held is not None]
        first = row.members[0]
        cached = {name: first.held[name] for name in ("num_cached_tokens",) if first.held is not None and name in first.held}
        of_prompt = cached | tensors({"num_input_tokens": first.tensors.prompt_tokens})
        for arrays in held:
            arrays.pop("num_cached_tokens", None)
            arrays |= of_prompt if arrays is held[0] else tensors({"num_input_tokens": 0})
        if row.options.batched:
            return [_placed(arrays, row, index) for index, arrays in enumerate(held)]
        return [self._merge(held)]

    def _merge(self, parts: Sequence[Arrays]) -> Arrays:
        """Whole answers as one response with an element each."""
        ranges, start = [], 0
        for arrays in parts:
            ranges += [n + start if n >= 0 else n for n in byte_ranges(arrays)]
            start += len(self._token_bytes.join(arrays["token_ids"].tolist()))
        merged = tensors({"byte_range": ranges, "sequence_index": [[index] for index in range(len(parts))]})
        for name in dict.fromkeys(name for arrays in parts for name in arrays if name not in merged):
            found = [arrays.get(name) for arrays in parts]
            like = next(array for array in found if array is not None)
            missing = strings("") if like.dtype == np.object_ else np.zeros_like(like)
            of_response = OUTPUTS[name].dims == (1,)
            merged[name] = like if of_response else stacked([missing if array is None else array for array in found])
        return merged

    def _spread(self, row: _Row, member: _Member, arrays: Arrays) -> Arrays:
        """A chunk as vLLM gives it: an element for every sequence, empty for those that have nothing new."""
        members, own = row.members, member.index
        ranges = [byte_ranges(arrays) if one is member else [0, 0, *byte_ranges(arrays)[2:]] for one in members]
        if ranges[own][2] >= 0:  # others' thinking has no more text than they have
            ranges = [found if one is member else [0] * 4 for found, one in zip(ranges, members, strict=True)]
        spread = arrays | tensors({
            "byte_range": [place for places in ranges for place in places],
            "finish_reason": [vllm_reason(one.reason) for one in members],
            "sequence_index": own,
        })  # fmt: skip
        for name in arrays:
            if (idle := OUTPUTS[name].idle) is not None:
                missing = tensors({name: idle})[name]
                spread[name] = stacked([arrays[name] if one is member else missing for one in members])
        if "cum_log_probs" in arrays:
            spread |= tensors({"cum_log_probs": [one.tensors.logprob for one in members]})
        return spread


def _placed(arrays: Arrays, row: _Row, index: int) -> Arrays:
    """With the numbers of its row and sequence, [1, 1] each: old clients read [0][0]."""
    batch = {"batch_index": row.number} if row.options.batched else {}
    return arrays | tensors({"sequence_index": index} | batch)
