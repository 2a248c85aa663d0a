"""Who says nothing for long is noticed, and nobody else. Run: pytest tests/server/test_watchdog.py"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from triune_server.watchdog import Probe, Watchdog

WATCHED = {7: "one", 8: "two"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Iterator[Watchdog]:
    made = Watchdog(30.0, clock)
    yield made
    made.close()


def passes(
    watchdog: Watchdog, clock: Clock, seconds: int, say: bytes = b"", watched: Mapping[int, str] = WATCHED
) -> str | None:
    """What is wrong after so many seconds, with looks in between; at each something is said."""
    for _ in range(seconds):
        clock.now += 1.0
        if say:
            os.write(watchdog.descriptor, say)
        if (problem := watchdog.problem(watched)) is not None:
            return problem
    return None


def test_silence_is_a_problem_and_words_are_none(watchdog: Watchdog, clock: Clock) -> None:
    assert passes(watchdog, clock, 1_000, b"7 0\n8 0\n") is None
    assert passes(watchdog, clock, 30, b"7 0\n") is None
    assert passes(watchdog, clock, 2, b"7 0\n") == "two has given no sign of life for 30 s (pid 8)"


def test_a_third_of_that_silence_is_told_until_the_next_word(watchdog: Watchdog, clock: Clock) -> None:
    assert passes(watchdog, clock, 1, b"7 0\n8 0\n") is None
    assert passes(watchdog, clock, 10, b"7 0\n") is None and watchdog.stalled(WATCHED) is None
    assert passes(watchdog, clock, 1, b"7 0\n") is None
    assert watchdog.stalled(WATCHED) == "two has given no sign of life for 10 s"
    assert passes(watchdog, clock, 1, b"7 0\n8 0\n") is None and watchdog.stalled(WATCHED) is None


def test_who_was_never_heard_of_is_not_waited_for(watchdog: Watchdog, clock: Clock) -> None:
    assert passes(watchdog, clock, 1_000, b"7 0\n9 0\n") is None


def test_who_was_stopped_before_a_first_word_is_waited_for_as_long_as_others(watchdog: Watchdog, clock: Clock) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            watched = {process.pid: "it"}
            assert [passes(watchdog, clock, 25, watched=watched), passes(watchdog, clock, 10, watched=watched)] == [
                None, f"it has given no sign of life for 30 s (pid {process.pid})",
            ]  # fmt: skip
            process.send_signal(signal.SIGCONT)
            os.waitid(os.P_PID, process.pid, os.WCONTINUED)
            assert passes(watchdog, clock, 1_000, watched=watched) is None
        finally:
            process.kill()


def test_a_machine_that_slept_has_silenced_nobody(watchdog: Watchdog, clock: Clock) -> None:
    assert passes(watchdog, clock, 5, b"7 0\n8 0\n") is None
    for _ in range(10):  # at each look hours have passed: nobody had time to say anything
        clock.now += 10_000
        assert watchdog.problem(WATCHED) is None
    assert passes(watchdog, clock, 5, b"7 0\n8 0\n") is None


def test_work_that_stands_still_is_a_problem_until_it_goes_on(watchdog: Watchdog, clock: Clock) -> None:
    assert passes(watchdog, clock, 1, b"7 61\n8 0\n") == "one has stood still for 61 s (pid 7)"
    assert passes(watchdog, clock, 1, b"7 0\n8 0\n") is None


def test_what_was_ended_is_forgotten_though_it_still_had_said_something(watchdog: Watchdog, clock: Clock) -> None:
    os.write(watchdog.descriptor, b"7 61\n")
    watchdog.forget(7)
    assert passes(watchdog, clock, 100) is None


def test_what_is_no_line_of_ours_is_skipped(watchdog: Watchdog, clock: Clock) -> None:
    said = b"7 0\n\n8\nx y\n1 2 3\n\xff\xfe\n8 0\n"
    assert passes(watchdog, clock, 100, said) is None
    assert passes(watchdog, clock, 40, b"\xff\n7 0\n") == "two has given no sign of life for 30 s (pid 8)"


def test_a_probe_speaks_for_a_process_while_it_answers(clock: Clock) -> None:
    watchdog = Watchdog(0.5, clock)
    answers = threading.Event()
    answers.set()
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return answers.is_set()

    probe = Probe(7, ask, watchdog)

    def wait_asked(more: int, each: Callable[[], None]) -> None:
        end, enough = time.monotonic() + 20, asked + more
        while asked < enough:
            assert time.monotonic() < end
            time.sleep(0.01)
        each()

    def is_well() -> None:
        clock.now += 0.4
        assert watchdog.problem(WATCHED) is None

    for _ in range(5):
        wait_asked(2, is_well)
    answers.clear()
    wait_asked(2, is_well)
    clock.now += 0.4
    assert "one has given no sign of life" in (watchdog.problem(WATCHED) or "")
    probe.end()
