"""What has to be sent to whom, and when. Knows chunks, sinks and seconds as numbers; no thread, no clock.

A stream's chunks are merged while they wait: for the sender, for their turn (all streams together send a bounded number a
second), or for the acknowledgement of earlier ones. So a stream never holds more than one unsent chunk. First and last
chunks do not wait.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .errors import TriuneError
from .request import Chunk, Event, join

Item = Chunk | TriuneError
Sink = Callable[[Item], None]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How chunks go out."""

    max_chunks_per_s: float = 75.0  # of all streams together, besides first and last chunks
    max_unacknowledged: int = 32  # chunks of a stream; then it waits for acknowledgements
    ack_timeout_s: float | None = 10.0  # a stream whose acknowledgements stop for this long is given up; None: never


DEFAULT_PACE = Pace()


def _is_last(item: Item | None) -> bool:
    return isinstance(item, TriuneError) or (item is not None and item.finish_reason is not None)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Call `sink` with `item` now."""

    key: int
    sink: Sink
    item: Item


@dataclass(slots=True)
class _Stream:
    sink: Sink
    leased: bool  # acknowledgements are expected
    pending: Item | None = None
    sent: int = 0  # chunks
    sent_at: float = -math.inf
    unacknowledged: deque[tuple[int, float]] = field(default_factory=deque)  # (chunk index, when sent), oldest first
    given_up: bool = False  # nobody reads it: only its last item goes out

    def due(self, pace: Pace, streaming: int) -> float:
        """When its pending item may go out."""
        if self.pending is None:
            return math.inf
        if _is_last(self.pending):
            return -math.inf
        if self.given_up or (self.leased and len(self.unacknowledged) >= pace.max_unacknowledged):
            return math.inf
        return self.sent_at + streaming / pace.max_chunks_per_s


class Outbox:
    """Streams by request key. One thread at a time."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._streams: dict[int, _Stream] = {}
        self._begun: dict[int, _Stream] = {}  # those that have had an event: waiting ones cost no time here

    def __len__(self) -> int:
        """How many requests have not had their last item."""
        return len(self._streams)

    def open(self, key: int, sink: Sink, *, leased: bool) -> None:
        """Expect events of request `key`. Not leased: acknowledgements count from the first that comes."""
        assert key not in self._streams, f"request key {key} is in use"
        self._streams[key] = _Stream(sink, leased)

    def put(self, events: Iterable[Event]) -> None:
        """Take in events. Those of a request that has its last item already count for nothing."""
        for event in events:
            stream = self._streams.get(event.key)
            if stream is None or _is_last(stream.pending):
                continue
            if isinstance(stream.pending, Chunk) and isinstance(event.item, Chunk):
                stream.pending = join(stream.pending, event.item)
            else:
                stream.pending = event.item
            self._begun[event.key] = stream

    def fail_rest(self, error: TriuneError) -> None:
        """End every request that has no last item yet with `error`."""
        self.put([Event(key, error) for key in self._streams])

    def take(self, now: float) -> Delivery | None:
        """What is to be sent now, if anything; it counts as sent."""
        key, due = self._next()
        if key is None or due > now:
            return None
        stream = self._begun[key]
        item, stream.pending = stream.pending, None
        assert item is not None, "a due stream has something to send"
        if isinstance(item, Chunk):  # merged chunks leave gaps in the engine's own numbers
            item = dataclasses.replace(item, index=stream.sent)
            if not stream.leased:  # perhaps nobody acknowledges: only the latest is worth remembering
                stream.unacknowledged.clear()
            stream.unacknowledged.append((stream.sent, now))
        stream.sent, stream.sent_at = stream.sent + 1, now
        if _is_last(item):
            del self._streams[key], self._begun[key]
        return Delivery(key, stream.sink, item)

    def acknowledge(self, key: int, index: int | None = None) -> None:
        """Chunks up to `index` of request `key` have arrived; None: all that were sent."""
        if (stream := self._streams.get(key)) is not None:
            stream.leased = True
            while stream.unacknowledged and (index is None or stream.unacknowledged[0][0] <= index):
                stream.unacknowledged.popleft()

    def give_up(self, key: int) -> None:
        """Send request `key` nothing more but its last item."""
        if (stream := self._streams.get(key)) is not None:
            stream.given_up = True

    def expired(self, now: float) -> list[int]:
        """Requests whose acknowledgements have stopped, each named once. They are given up; whoever asks ends them."""
        keys = [key for key, stream in self._begun.items() if self._lease_end(stream) <= now]
        for key in keys:
            self.give_up(key)
        return keys

    def wake_at(self) -> float:
        """When `take` or `expired` will next have something, if nothing else happens; infinity: never."""
        leases = min(map(self._lease_end, self._begun.values()), default=math.inf)
        return min(self._next()[1], leases)

    def _next(self) -> tuple[int | None, float]:
        """The stream that is due first, and when."""
        streaming = sum(stream.sent > 0 for stream in self._begun.values())
        best, best_due = None, math.inf
        for key, stream in self._begun.items():
            if (due := stream.due(self._pace, streaming)) < best_due:
                best, best_due = key, due
        return best, best_due

    def _lease_end(self, stream: _Stream) -> float:
        if self._pace.ack_timeout_s is None or not stream.leased or stream.given_up or not stream.unacknowledged:
            return math.inf
        return stream.unacknowledged[0][1] + self._pace.ack_timeout_s
