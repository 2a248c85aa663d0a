"""Who waits for a slot, and whose turn it is. Knows whole numbers and the names of clients; no slots, no text, no time.

Without fair shares all who wait are one client, in the order in which they came. With them each client has a queue of its own,
and the next is of the client that has been given the fewest tokens. A client is charged for a request when that gets its slots:
its prompt and the longest that its answers may be; what they did not use is given back when they end. A client that comes, or
comes back, has been given as much as a share of all until then: it has no claim to the time when it asked for nothing, and
who waits already is not overtaken for ever by those who come.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import Overloaded
from ..options.declared import CLIENT
from .sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class FairShare:
    """What one client may have at most.

    Attributes:
        most_running: sequences that hold slots at once; one request that has more of them waits until it is its client's only.
        most_waiting: sequences that wait for a slot.
    """

    most_running: int
    most_waiting: int

    @classmethod
    def of(cls, slots: int, queue: int, most_running: int = 0) -> FairShare:
        """Three quarters of all, so that there is room for who comes.

        Args:
            slots: sequences that run at once.
            queue: sequences that may wait.
            most_running: 0: by these.
        """
        return cls(most_running=most_running or max(1, slots * 3 // 4), most_waiting=max(1, queue * 3 // 4))


class Waiting:
    """The leaders of groups that wait; what is said of one holds for its siblings."""

    def __init__(self, fair: FairShare | None = None) -> None:
        """
        Args:
            fair: None: no shares.
        """
        self._fair = fair
        self._back: deque[Sequence] = deque()  # who lost their slots: before all others
        self._queues: dict[str, deque[Sequence]] = {}  # by client; none is empty
        self._given: dict[str, int] = {}  # tokens, by client
        self._running: Counter[str] = Counter()  # sequences that hold slots, by client
        self._share = 0  # tokens that a client has been given that comes now

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._back
        for queue in self._queues.values():
            yield from queue

    def __len__(self) -> int:
        return len(self._back) + sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._back or self._queues)

    @property
    def first(self) -> Sequence | None:
        """Whose turn it is; None: nobody waits, or only for others of their own client."""
        if self._back:
            return self._back[0]
        if self._fair is None:
            return next((queue[0] for queue in self._queues.values()), None)
        may_run = [client for client, queue in self._queues.items() if self._may_run(client, queue[0])]
        if not may_run:
            return None
        firsts = [(self._given[one], self._running[one], self._queues[one][0].number, one) for one in may_run]
        return self._queues[min(firsts)[-1]][0]

    def append(self, leader: Sequence) -> None:
        """Let a group wait behind its client's others.

        Raises:
            Overloaded: as many of its client's wait as may.
        """
        client = self._client(leader)
        if self._fair is not None:
            queued = sum(len(one.members) for one in self._queues.get(client, ()))
            if queued >= self._fair.most_waiting:
                said = f"{queued:,} requests of this client are waiting already, the limit is {self._fair.most_waiting:,}"
                raise Overloaded(said, "send it again later", param=CLIENT)
        if client not in self._queues:
            self._queues[client] = deque()
            self._given[client] = max(self._given.get(client, 0), self._share)
        self._queues[client].append(leader)

    def put_back(self, leader: Sequence) -> None:
        """Let a group that lost its slots wait before all others."""
        self._back.appendleft(leader)

    def take(self) -> Sequence:
        """Take out `first`, which gets its slots."""
        leader = self.first
        assert leader is not None, "somebody's turn it is"
        self._remove(leader)
        if leader.turn == 0:
            self._charge(leader)
        self._running[self._client(leader)] += len(leader.members)
        return leader

    def released(self, sequence: Sequence, *, ended: bool) -> None:
        """A sequence has no slot any more.

        Args:
            ended: it does not come back.
        """
        client = self._client(sequence)
        self._running[client] -= 1
        if ended:
            self._given[client] -= sequence.max_tokens - sequence.generated

    def leave(self, leader: Sequence) -> None:
        """Take one out that leads a group here, if it does; the next of the group leads it then."""
        queue = self._back if leader in self._back else self._queues.get(self._client(leader), deque())
        if leader not in queue:
            return
        if leader.siblings:
            queue[queue.index(leader)] = leader.hand_over()
        else:
            self._remove(leader)

    def _remove(self, leader: Sequence) -> None:
        if leader in self._back:
            self._back.remove(leader)
            return
        client = self._client(leader)
        self._queues[client].remove(leader)
        if not self._queues[client]:
            del self._queues[client]

    def _client(self, sequence: Sequence) -> str:
        return sequence.request.client if self._fair is not None else ""

    def _may_run(self, client: str, leader: Sequence) -> bool:
        assert self._fair is not None, "asked with shares only"
        running = self._running[client]
        return not running or running + len(leader.members) <= self._fair.most_running

    def _charge(self, leader: Sequence) -> None:
        client = self._client(leader)
        tokens = len(leader.request.prompt) + sum(member.max_tokens for member in leader.members)
        self._running += Counter()  # without those that are 0
        busy = {client, *self._queues, *self._running, *map(self._client, self._back)}
        before = self._given[client]
        self._given[client] = before + tokens
        self._share = max(self._share + max(1, tokens // len(busy)), before)
        self._given = {
            one: given for one, given in self._given.items() if one in busy or given > self._share
        }  # who asks for nothing and has had no more than his share is as one who never came
