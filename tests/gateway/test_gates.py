"""Who is refused without asking the server, in virtual time: never after a better word of it, and nobody for long.

Run: pytest tests/gateway/test_gates.py
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triune_gateway.bearer import CLIENT
from triune_gateway.gates import OLD_S, PATIENCE_S, PROBE_S, Gates, Sent

FULL = ("overloaded", None)
STEP_S = 0.02


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates(clock: Clock) -> Gates:
    return Gates(clock)


def entered(gates: Gates, client: str = "a", places: int = 1) -> Sent:
    sent = gates.enter("m", client, places)
    assert sent is not None
    return sent


@given(st.lists(st.tuples(st.sampled_from(["come", "full", "taken", "end", "wait"]), st.integers(0, 5)), max_size=80))
def test_the_word_about_the_latest_request_holds(does: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order: after a good word nobody is refused; while it is full, who waits for a probe's time is
    not, nor as many as have ended since; and all others are, while the word is no second old."""
    clock = Clock()
    gates = Gates(clock)
    silent: list[Sent] = []
    spoken: list[Sent] = []
    heard, full, room, probe_at, said_at = 0, False, 0, 0.0, 0.0
    for what, which in does:
        if what == "wait":
            if not full or not any(one.number > heard for one in silent):  # else its silence would tell something
                clock.now += (which + 1) * STEP_S
        elif what == "come":
            full = full and clock.now - said_at <= OLD_S
            expected = full and room <= 0 and clock.now < probe_at
            assert gates.refuses("m", "a") == expected, "asking tells what would become of it"
            sent = gates.enter("m", "a")
            assert (sent is None) == expected
            if sent is not None:
                silent.append(sent)
                if full and room > 0:
                    room -= 1
                elif full:
                    probe_at = clock.now + PROBE_S
        elif what == "end":
            of = spoken if which % 2 and spoken else silent
            if of:
                of.pop(which % len(of)).ended()
                room += full
        elif silent:
            sent = silent.pop(which % len(silent))
            if what == "full":
                sent.failed(*FULL)
            else:
                sent.taken()
                spoken.append(sent)
            if sent.number > heard:
                if what == "full" and not full:
                    room, probe_at = 0, clock.now + PROBE_S
                heard, full = sent.number, what == "full"
                said_at = clock.now if full else said_at


def test_a_request_that_is_silent_for_longer_than_a_refusal_takes_was_taken(gates: Gates, clock: Clock) -> None:
    entered(gates).failed(*FULL)
    clock.now += PROBE_S
    probe = entered(gates)
    assert gates.refuses("m", "a")
    clock.now += PATIENCE_S + STEP_S
    assert not any(gates.refuses("m", "a") for _ in range(100)), "the place that the server had was not its last"
    probe.failed(*FULL)  # after all
    assert gates.refuses("m", "a")


def test_the_slower_a_server_refuses_the_longer_its_silence_means_nothing(gates: Gates, clock: Clock) -> None:
    slow = entered(gates)
    clock.now += 1.0
    slow.failed(*FULL)
    clock.now += PROBE_S
    entered(gates)
    clock.now += PATIENCE_S + STEP_S
    entered(gates)  # a probe
    assert gates.refuses("m", "a")


def test_an_old_word_is_none(gates: Gates, clock: Clock) -> None:
    """Who made the server full may have asked past this gateway, and left."""
    entered(gates).failed(*FULL)
    clock.now += OLD_S + STEP_S
    for _ in range(20):
        entered(gates)


def test_who_leaves_before_anything_is_said_says_nothing(gates: Gates, clock: Clock) -> None:
    entered(gates).failed(*FULL)
    clock.now += PROBE_S
    entered(gates).ended()
    clock.now += PATIENCE_S + STEP_S
    entered(gates)  # for the place that it left
    entered(gates)  # a probe
    assert gates.refuses("m", "a")


def test_one_client_s_share_that_is_full_is_nobody_else_s(gates: Gates) -> None:
    entered(gates, "greedy").failed("overloaded", CLIENT)
    assert gates.refuses("m", "greedy") and not gates.refuses("m", "other")
    assert not gates.refuses("another model", "greedy")
    entered(gates, "other").failed(*FULL)
    assert gates.refuses("m", "other") and gates.refuses("m", "third")


def test_a_share_that_is_full_says_that_the_server_is_not(gates: Gates) -> None:
    first, second = entered(gates, "other"), entered(gates, "greedy")
    first.failed(*FULL)
    assert gates.refuses("m", "third")
    second.failed("overloaded", CLIENT)
    assert not gates.refuses("m", "third") and gates.refuses("m", "greedy")


@pytest.mark.parametrize(
    "words",
    [("stopping", None), (None, None), ("overloaded", "response_format"), ("invalid_value", CLIENT), ("too_long", None)],
)
def test_only_want_of_places_closes(gates: Gates, words: tuple[str | None, str | None]) -> None:
    entered(gates).failed(*words)
    assert not gates.refuses("m", "a")
    entered(gates).failed(*FULL)
    assert gates.refuses("m", "a")


def test_a_request_for_many_answers_that_finds_no_room_says_nothing_of_one_for_one(gates: Gates) -> None:
    entered(gates, places=8).failed(*FULL)
    assert gates.enter("m", "a", 8) is None and gates.enter("m", "a", 30) is None
    for _ in range(20):
        entered(gates, places=7)
    entered(gates, places=2).failed(*FULL)
    assert gates.enter("m", "a", 2) is None
    entered(gates, places=1)


def test_clients_that_are_remembered_are_bounded(gates: Gates) -> None:
    entered(gates).failed(*FULL)
    for number in range(3000):
        gates._made("m", str(number))
    assert len(gates._gates) <= 1000 and gates.refuses("m", "a"), "what is said of all is not forgotten"


@dataclass
class World:
    """A server with slots and a queue, gates before it, and clients beside them, on virtual time."""

    slots: int
    queue: int
    service_s: float
    refusal_s: float
    clock: Clock = field(default_factory=Clock)
    served: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # by the server itself
    turned_away: Counter[str] = field(default_factory=Counter)  # by a gate

    def __post_init__(self) -> None:
        self._running = 0
        self._waiting: deque[tuple[str, Sent | None]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.now + seconds, next(self._numbers), do))

    def arrive(self, name: str, every_s: float, gates: Gates | None, until: float) -> None:
        """A client that asks at a rate, whatever becomes of it."""
        sent = None if gates is None else gates.enter("m", name)
        if gates is None or sent is not None:
            self._ask(name, sent)
        else:
            self.turned_away[name] += 1
        if self.clock.now + every_s < until:
            self.after(every_s, lambda: self.arrive(name, every_s, gates, until))

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] <= seconds:
            self.clock.now, _, do = heapq.heappop(self._events)
            do()
        self.clock.now = seconds

    def _ask(self, name: str, sent: Sent | None) -> None:
        if self._running + len(self._waiting) >= self.slots + self.queue:
            self.refused[name] += 1
            if sent is not None:
                self.after(self.refusal_s, lambda: sent.failed(*FULL))
            return
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


SECONDS = 20.0


@settings(deadline=None)
@given(
    slots=st.integers(1, 32), queue=st.integers(2, 64), service_s=st.floats(0.2, 4.0), refusal_s=st.floats(0.001, 0.3),
    replicas=st.integers(1, 4), beside=st.booleans(), times=st.floats(0.3, 20.0),
)  # fmt: skip
def test_no_capacity_is_lost_however_many_gateways_ask_one_server(
    slots: int, queue: int, service_s: float, refusal_s: float, replicas: int, beside: bool, times: float
) -> None:
    """Gateways that know nothing of each other, and clients past them: what is served is what would be without any gate."""
    able = slots / service_s
    clients = replicas + beside
    every_s = clients / (times * able)

    def served(gated: bool) -> World:
        world = World(slots, queue, service_s, refusal_s)
        for number in range(clients):
            gates = Gates(world.clock) if gated and number < replicas else None
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


@settings(deadline=None)
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
