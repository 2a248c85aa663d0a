"""What a soak test finds wrong: memory that grows, wrong answers, slots that are kept. Run: pytest tests/bench/test_soak.py"""

from __future__ import annotations

import random
from typing import Any

import pytest
from bench.chaos.answers import ANSWERED, REFUSED, WRONG, Outcome
from bench.chaos.footprint import Footprint, Member
from bench.soak.drawing import draw
from bench.soak.trend import trend
from bench.soak.watching import Line, judge, line

STEADY = [100.0] * 120


def noisy(values: list[float], noise: float) -> list[float]:
    chance = random.Random(1)
    return [value + chance.gauss(0, noise) for value in values]


@pytest.mark.parametrize("noise", [0.0, 1.0, 20.0])
def test_a_steady_row_does_not_grow_whatever_its_noise(noise: float) -> None:
    found = trend(range(120), noisy(STEADY, noise))
    assert found is not None and not found.grows(8.0)


def test_a_row_that_grows_is_found_under_its_noise() -> None:
    found = trend(range(120), noisy([100.0 + 0.5 * n for n in range(120)], 2.0))
    assert found is not None and found.grows(8.0)
    assert found.growth == pytest.approx(0.5 * 95, rel=0.1)


def test_growth_in_the_warm_up_is_none() -> None:
    found = trend(range(120), [float(min(n, 20)) for n in range(120)])
    assert found is not None and found.growth == 0


def test_too_few_points_say_nothing() -> None:
    assert trend([1.0, 2.0], [1.0, 9.0]) is None and trend([], []) is None


def lines(memory: list[float], seconds: float = 0.2, wrong: str = "", restarted: bool = False) -> list[Line]:
    found = []
    for n, mib in enumerate(memory):
        member = Member(7 + (restarted and n > 50), 0.0, "generate", 20, mib)
        outcomes = [Outcome(ANSWERED, "grpc", "", seconds), Outcome(REFUSED, "chat", "503", 0.1)]
        if wrong and n == 60:
            outcomes.append(Outcome(WRONG, "chat", wrong, 0.1))
        found.append(line(5.0 * n, Footprint((member,)), outcomes, 0.0))
    return found


@pytest.mark.parametrize(
    ("made", "holds", "left", "said"),
    [
        ({"memory": [100.0 + n for n in range(120)]}, 0.0, [], "memory_mib of generate grows"),
        ({"memory": STEADY, "wrong": "'b', where 'a' is right"}, 0.0, [], "wrong over chat: 'b'"),
        ({"memory": STEADY, "restarted": True}, 0.0, [], "another has taken its place"),
        ({"memory": STEADY}, 3.0, [], "holds 3.0 requests"),
        ({"memory": STEADY}, None, [], "holds None requests"),
        ({"memory": STEADY}, 0.0, ["leaked process: x"], "leaked process: x"),
    ],
)
def test_what_is_wrong_fails_the_run_and_is_said(made: dict[str, Any], holds: float | None, left: list[str], said: str) -> None:
    verdict = judge(lines(**made), holds, left)
    assert verdict["verdict"] == "failed" and any(said in failure for failure in verdict["failures"])


def test_a_sound_run_passes_and_counts_what_was_answered_and_refused() -> None:
    verdict = judge(lines(noisy(STEADY, 0.5)), 0.0)
    assert (verdict["verdict"], verdict["answered"], verdict["refused"], verdict["failures"]) == ("passed", 120, 120, [])


def test_the_page_shows_the_verdict_and_every_process_and_needs_nothing_from_elsewhere() -> None:
    seen = lines([100.0 + n for n in range(120)])
    text = draw(seen, judge(seen, 0.0))
    assert text.count("<svg") == 4 and "memory_mib of generate grows" in text and "failed" in text
    assert "http://" not in text and "https://" not in text and "<script" not in text
