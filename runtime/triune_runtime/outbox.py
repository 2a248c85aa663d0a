"""What has to be sent to whom, and when. Knows chunks, sinks and seconds as numbers; no thread, no clock.

All streams together send a bounded number of chunks a second. Who makes the chunks asks which streams are `wanted`, so that
one is made only when it can go out; what comes all the same is merged with what waits: for the sender, for its turn, or for
the acknowledgement of earlier chunks. So a stream never holds more than one unsent chunk. First and last chunks do not wait.

Every call costs the logarithm of the number of streams at most, however many there are.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
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
    turn: int = -1  # the entry that holds its place: among those with something to send, or among those without


class _Turns:
    """Streams by the time from which they wait; a stream's latest entry counts, older ones are passed over."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []  # (since, entry, key)

    def add(self, since: float, entry: int, key: int) -> None:
        heapq.heappush(self._heap, (since, entry, key))

    def first(self, streams: dict[int, _Stream]) -> tuple[float, int] | None:
        """Since when the first one waits, and its key."""
        while self._heap:
            since, entry, key = self._heap[0]
            if (stream := streams.get(key)) is not None and stream.turn == entry:
                return since, key
            heapq.heappop(self._heap)
        return None


class Outbox:
    """Streams by request key. One thread at a time, but for looking into `wanted`."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._streams: dict[int, _Stream] = {}
        self._entries = itertools.count()
        self._queued = _Turns()  # those with something to send
        self._resting = _Turns()  # those whose next chunk has to wait for its turn
        self._wanted: set[int] = set()
        self._leases: list[tuple[float, int, int]] = []  # (when sent, chunk index, key) of oldest unacknowledged chunks
        self._streaming = 0  # streams that have sent something, and will send more

    def __len__(self) -> int:
        """How many requests have not had their last item."""
        return len(self._streams)

    def open(self, key: int, sink: Sink, *, leased: bool) -> None:
        """Expect events of request `key`. Not leased: acknowledgements count from the first that comes."""
        assert key not in self._streams, f"request key {key} is in use"
        self._streams[key] = _Stream(sink, leased)
        self._wanted.add(key)

    def wanted(self, now: float) -> set[int]:
        """The streams whose next chunk could go out at once. May be looked into while others go on here."""
        while (first := self._resting.first(self._streams)) is not None and self._due(first[0]) <= now:
            self._streams[first[1]].turn = -1
            self._wanted.add(first[1])
        return self._wanted

    def put(self, events: Iterable[Event]) -> None:
        """Take in events. Those of a request that has its last item already count for nothing."""
        for event in events:
            key, stream = event.key, self._streams.get(event.key)
            if stream is None or _is_last(stream.pending):
                continue
            if isinstance(stream.pending, Chunk) and isinstance(event.item, Chunk):
                stream.pending = join(stream.pending, event.item)
            else:
                stream.pending = event.item
            self._place(key, stream)

    def fail_rest(self, error: TriuneError) -> None:
        """End every request that has no last item yet with `error`."""
        self.put([Event(key, error) for key in self._streams])

    def take(self, now: float) -> Delivery | None:
        """What is to be sent now, if anything; it counts as sent."""
        first = self._queued.first(self._streams)
        if first is None or self._due(first[0]) > now:
            return None
        key = first[1]
        stream = self._streams[key]
        item, stream.pending = stream.pending, None
        assert item is not None, "a stream whose turn it is has something to send"
        last = _is_last(item)
        if isinstance(item, Chunk):  # merged chunks leave gaps in the engine's own numbers
            item = dataclasses.replace(item, index=stream.sent)
            if not stream.leased:  # perhaps nobody acknowledges: only the latest is worth remembering
                stream.unacknowledged.clear()
            stream.unacknowledged.append((stream.sent, now))
            self._note_lease(key, stream, stream.sent)
        self._streaming += (stream.sent == 0) - last if stream.sent == 0 or last else 0
        stream.sent, stream.sent_at = stream.sent + 1, now
        if last:
            del self._streams[key]
            self._wanted.discard(key)
        else:
            self._place(key, stream)
        return Delivery(key, stream.sink, item)

    def acknowledge(self, key: int, index: int | None = None) -> None:
        """Chunks up to `index` of request `key` have arrived; None: all that were sent."""
        if (stream := self._streams.get(key)) is None:
            return
        blocked = self._blocked(stream)
        stream.leased = True
        while stream.unacknowledged and (index is None or stream.unacknowledged[0][0] <= index):
            stream.unacknowledged.popleft()
        if stream.unacknowledged:
            self._note_lease(key, stream, stream.unacknowledged[0][0])
        if blocked:
            self._place(key, stream)

    def give_up(self, key: int) -> None:
        """Send request `key` nothing more but its last item."""
        if (stream := self._streams.get(key)) is not None:
            stream.given_up = True
            self._place(key, stream)

    def expired(self, now: float) -> list[int]:
        """Requests whose acknowledgements have stopped, each named once. They are given up; whoever asks ends them."""
        keys = []
        while (lease := self._first_lease()) is not None and lease[0] <= now:
            keys.append(lease[1])
            self.give_up(lease[1])
        return keys

    def wake_at(self) -> float:
        """When `take` or `expired` will next have something, if nothing else happens; infinity: never."""
        first, lease = self._queued.first(self._streams), self._first_lease()
        return min(math.inf if first is None else self._due(first[0]), math.inf if lease is None else lease[0])

    def _due(self, since: float) -> float:
        """When a stream may send again that has last sent at `since`."""
        return since + self._streaming / self._pace.max_chunks_per_s

    def _blocked(self, stream: _Stream) -> bool:
        """Whether nothing but its last item may be sent of a stream, however long it waits."""
        return stream.given_up or (stream.leased and len(stream.unacknowledged) >= self._pace.max_unacknowledged)

    def _place(self, key: int, stream: _Stream) -> None:
        """Give a stream the place that its state asks for."""
        stream.turn = -1
        self._wanted.discard(key)
        since = -math.inf if _is_last(stream.pending) else stream.sent_at
        if self._blocked(stream) and since != -math.inf:
            return
        if stream.pending is None and not stream.sent:
            self._wanted.add(key)
            return
        stream.turn = next(self._entries)
        (self._resting if stream.pending is None else self._queued).add(since, stream.turn, key)

    def _note_lease(self, key: int, stream: _Stream, index: int) -> None:
        """Watch for the acknowledgement of a chunk if it is the oldest that lacks one."""
        if self._pace.ack_timeout_s is not None and stream.unacknowledged[0][0] == index:
            heapq.heappush(self._leases, (stream.unacknowledged[0][1], index, key))

    def _first_lease(self) -> tuple[float, int] | None:
        """The lease that ends first: when, and whose."""
        while self._leases and self._pace.ack_timeout_s is not None:
            sent_at, index, key = self._leases[0]
            stream = self._streams.get(key)
            oldest = stream.unacknowledged[0][0] if stream and stream.unacknowledged else None
            if stream is not None and oldest == index and stream.leased and not stream.given_up:
                return sent_at + self._pace.ack_timeout_s, key
            heapq.heappop(self._leases)
        return None
