"""What becomes known of a request while it is served: for a line of the log, and for the spans of a trace.

Nothing of this is done where nobody is told: a `Recorder` without listeners wraps nothing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import TriuneError
from ..options.wire import Options
from ..outbox import Item, Sink
from ..request import Request, Times
from .responses import Reply

_PATIENCE_S = 1.0  # for the acknowledgement of a last chunk; who asks `generate` directly sends none


@dataclass(slots=True)
class SequenceRecord:
    """One answer."""

    key: int
    request: Request
    cached: int = 0  # tokens of the prompt that did not have to be computed
    generated: int = 0  # tokens
    reasoning: int = 0  # those of them that are thinking
    finish_reason: str | None = None
    times: Times | None = None
    sent_at: float | None = None  # the first chunk to detokenize
    seen_at: float | None = None  # the last one by detokenize
    chunks: int = 0  # sent
    seen: int = 0  # of them, by detokenize
    text: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """One request of a client. Times are of `time.monotonic`, in seconds."""

    id: str
    options: Options
    prompt: tuple[int, ...]
    began: float
    sequences: list[SequenceRecord] = field(default_factory=list)
    ended: float | None = None
    error: TriuneError | None = None

    @property
    def detokenized(self) -> bool:
        """Whether detokenize has seen all that was sent."""
        return all(one.seen >= one.chunks for one in self.sequences)


Listener = Callable[[Record], None]


class Recorder:
    """Makes a record of every request and tells its listeners, on any thread."""

    def __init__(self, at_end: Sequence[Listener], when_seen: Sequence[Listener]) -> None:
        """
        Args:
            at_end: told when the last response was sent.
            when_seen: told when detokenize has seen that too, or does not say so.
        """
        self._at_end, self._when_seen = at_end, when_seen
        self._waiting: dict[int, Record] = {}  # by the keys of their sequences: those whose chunks are still to be seen
        self._lock = threading.Lock()

    def begin(self, request_id: str, options: Options, prompt: tuple[int, ...]) -> Record:
        """A request has come."""
        return Record(request_id, options, prompt, time.monotonic())

    def sink(self, record: Record, request: Request, options: Options, sink: Sink) -> Sink:
        """`sink` of an answer of `record`, noting what passes. The request must be `timed`; who did not ask is not told."""
        found = SequenceRecord(request.key, request)
        record.sequences.append(found)
        if self._when_seen:
            with self._lock:
                self._waiting[request.key] = record

        def take(item: Item) -> None:
            if not isinstance(item, TriuneError):
                found.chunks += 1
                found.sent_at = found.sent_at or time.monotonic()
                found.cached = item.kv.reused_tokens
                found.generated += item.new_tokens
                found.reasoning += item.cut.reasoning_tokens
                found.finish_reason, found.times = item.finish_reason, item.times
                found.text.append(item.cut.token_ids[1:] if item.cut.byte_start and found.text else item.cut.token_ids)
                item = item if options.timed else dataclasses.replace(item, times=None)
            sink(item)

        return take

    def reply(self, record: Record, reply: Reply) -> Reply:
        """`reply` to the request of `record`, noting its end."""

        def say(answer: object, last: bool) -> None:
            reply(answer, last)  # type: ignore[arg-type]
            if last:
                self.end(record, answer if isinstance(answer, TriuneError) else None)

        return say

    def end(self, record: Record, error: TriuneError | None) -> None:
        """The last response was sent."""
        record.error, record.ended = error, time.monotonic()
        for listener in self._at_end:
            listener(record)
        if self._when_seen and (record.detokenized or not record.sequences):
            self._tell(record)

    def acknowledged(self, key: int) -> None:
        """Detokenize has seen a chunk of request `key`."""
        record = self._waiting.get(key)
        if record is None:
            return
        for one in record.sequences:
            if one.key == key:
                one.seen, one.seen_at = one.seen + 1, time.monotonic()
        if record.ended is not None and record.detokenized:
            self._tell(record)

    def sweep(self, patience_s: float = _PATIENCE_S) -> None:
        """Give up waiting for acknowledgements that do not come."""
        old = time.monotonic() - patience_s
        with self._lock:
            late = {id(one): one for one in self._waiting.values() if one.ended is not None and one.ended <= old}
        for record in late.values():
            self._tell(record)

    def _tell(self, record: Record) -> None:
        with self._lock:
            waited = [self._waiting.pop(one.key, None) for one in record.sequences]
        if not record.sequences or any(waited):
            for listener in self._when_seen:
                listener(record)
