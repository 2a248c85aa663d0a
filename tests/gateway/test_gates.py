"""Who is refused without asking the server, in virtual time: never after a better word of it, and nobody for long.

Run: pytest tests/gateway/test_gates.py
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
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


@example([("come", 0), ("come", 0), ("taken", 1), ("full", 0), ("come", 0)])  # the first refusal of all is an old one
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
