"""Gates before a server in virtual time, several of them and clients beside: no capacity is lost, and nobody waits for ever.

Run: pytest tests/gateway/test_gates_simulated.py
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from triune_gateway.gates import PROBE_S, Gates, Sent
from triune_gateway.room import Room, Said

FULL = ("overloaded", None)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A server with slots and a queue, gates before it, and clients beside them, on virtual time."""

    slots: int
    queue: int
    service_s: float
    refusal_s: float
    way_s: float = 0.0  # until a request is there
    clock: Clock = field(default_factory=Clock)
    served: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by the server itself
    turned_away: Counter[str] = field(default_factory=Counter)  # by a gate

    def __post_init__(self) -> None:
        self._running = self.came = 0
        self._waiting: deque[tuple[str, Sent | None]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.now + seconds, next(self._numbers), do))

    def arrive(self, name: str, every_s: float, gates: Gates | None, until: float) -> None:
        """A client that asks at a rate, whatever becomes of it."""
        sent = None if gates is None else gates.enter("m", name)
        if gates is None or sent is not None:
            self.after(self.way_s, lambda: self._ask(name, sent))
        else:
            self.turned_away[name] += 1
        if self.clock.now + every_s < until:
            self.after(every_s, lambda: self.arrive(name, every_s, gates, until))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] <= seconds:
            self.clock.now, _, do = heapq.heappop(self._events)
            do()
        self.clock.now = seconds

    @property
    def free(self) -> int:
        return self.slots + self.queue - self._running - len(self._waiting)

    def _ask(self, name: str, sent: Sent | None) -> None:
        if self.free <= 0:
            self.refused[name] += 1
            if sent is not None:
                self.after(self.refusal_s, lambda: sent.failed(*FULL))
            return
        self.came += 1
        self._waiting.append((name, sent))
        self._start()

    def _start(self) -> None:
        while self._waiting and self._running < self.slots:
            name, sent = self._waiting.popleft()
            self._running += 1
            if sent is not None:
                self.after(self.service_s / 10, sent.taken)
            self.after(self.service_s, lambda name=name, sent=sent: self._end(name, sent))  # type: ignore[misc]

    def _end(self, name: str, sent: Sent | None) -> None:
        self._running -= 1
        self.served[name] += 1
        if sent is not None:
            sent.ended()
        self._start()


class Told(Room):
    """What the server of a world says of its room."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def said(self, model: str) -> Said:
        return Said(self._world.free, self._world.came)


SECONDS = 20.0


@settings(deadline=None)
@given(
    slots=st.integers(1, 32), queue=st.integers(2, 64), service_s=st.floats(0.2, 4.0), refusal_s=st.floats(0.001, 0.3),
    replicas=st.integers(1, 4), beside=st.booleans(), times=st.floats(0.3, 20.0), way_s=st.sampled_from([0.0, 0.02]),
    told=st.booleans(),
)  # fmt: skip
def test_no_capacity_is_lost_however_many_gateways_ask_one_server(
    slots: int,
    queue: int,
    service_s: float,
    refusal_s: float,
    replicas: int,
    beside: bool,
    times: float,
    way_s: float,
    told: bool,
) -> None:
    """Gateways that know nothing of each other, and clients past them: what is served is what would be without any gate.

    Whether the server tells the gates how much room it has or they learn it of its refusals.
    """
    able = slots / service_s
    clients = replicas + beside
    every_s = clients / (times * able)

    def served(gated: bool) -> World:
        world = World(slots, queue, service_s, refusal_s, way_s)
        for number in range(clients):
            gates = Gates(world.clock, Told(world) if told else None) if gated and number < replicas else None
            world.after(every_s * number / clients, lambda n=str(number), g=gates: world.arrive(n, every_s, g, SECONDS))  # type: ignore[misc]
        world.run(SECONDS)
        return world

    free, gated = served(False), served(True)
    assert gated.served.total() >= 0.95 * free.served.total() - slots
    if times < 0.9:
        assert not gated.turned_away


@settings(deadline=None)
@given(refusal_s=st.floats(0.001, 0.3), replicas=st.integers(1, 4))
def test_most_of_what_a_full_server_would_refuse_does_not_reach_it(refusal_s: float, replicas: int) -> None:
    world = World(16, 256, 2.0, refusal_s)
    for number in range(replicas):
        world.arrive(str(number), replicas / 160, Gates(world.clock), 30.0)
    world.run(30.0)
    asked = world.refused.total()
    assert asked <= 30 / PROBE_S * replicas + 2 * 160 * refusal_s + 160, "probes, and what came before the first refusals"


@settings(max_examples=30, deadline=None)
@given(service_s=st.floats(0.2, 4.0), refusal_s=st.floats(0.001, 0.3))
def test_a_server_that_is_left_by_others_is_full_again_soon(service_s: float, refusal_s: float) -> None:
    """All places are clients' that ask past the gateway, until these stop: nothing tells it so but its probes."""
    world = World(16, 64, service_s, refusal_s)
    gates = Gates(world.clock)
    able = 16 / service_s
    world.arrive("beside", 1 / (20 * able), None, 20.0)
    world.arrive("here", 1 / (20 * able), gates, 40.0)
    world.run(20.0)
    before = world.served.total()
    world.run(40.0)
    assert world.served.total() - before >= 0.9 * able * 20.0 - 16, "a slot was left empty"


def test_a_gateway_that_is_asked_little_gets_its_answers_beside_one_that_is_asked_much() -> None:
    world = World(16, 64, 2.0, 0.02)
    world.arrive("much", 1 / 160, Gates(world.clock), 120.0)
    world.arrive("little", 0.5, Gates(world.clock), 120.0)
    world.run(130.0)
    assert world.served["little"] >= 3


@settings(max_examples=30, deadline=None)
@given(way_s=st.floats(0.001, 0.3), replicas=st.integers(1, 4))
def test_a_server_that_tells_its_room_is_asked_for_little_more_than_it_has(way_s: float, replicas: int) -> None:
    world = World(16, 256, 2.0, 0.3, way_s)
    for number in range(replicas):
        world.arrive(str(number), replicas / 160, Gates(world.clock, Told(world)), 30.0)
    world.run(30.0)
    taken = world.served.total() + 16 + 256
    assert world.refused.total() <= (replicas - 1) * taken + 16, "each lets one pass for a place, as none knows of the others"
    assert world.turned_away.total() > 3000
