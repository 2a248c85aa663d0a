"""The simulator's terms are those of the steps that were recorded, and its medians stand beside the server's.

Run: pytest tests/bench/test_simulated.py
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from bench.simulated import Asked, Step, expected, fit, full_rate, judge, steps_of, way

from triune_builder.planning.replica import Limits, Pace, serve

LIMITS = Limits(sequences=4, step_tokens=64, chunk=64, kv_tokens=10_000)
GAPS = {0: 0.0, 1: 0.004, 2: 0.006, 3: 0.008, 4: 0.010}
CONTEXT, PROMPT, TOKEN = 1e-5, 0.003, 0.0005


def step(decodes: int, context: int, prompts: int, tokens: int) -> Step:
    seconds = GAPS[decodes] + CONTEXT * context + PROMPT * prompts + TOKEN * tokens
    return Step(decodes, context, prompts, tokens, seconds)


def various(count: int = 200) -> list[Step]:
    chance, found = random.Random(0), list[Step]()
    for _ in range(count):
        decodes, prompts = chance.randrange(5), chance.randrange(3)
        found.append(step(decodes, decodes * chance.randrange(90), prompts, prompts * chance.randrange(1, 30)))
    return [one for one in found if one.seconds]


def samples(arrivals: list[float], prompt: int, answer: int, first_ms: float, gap_ms: float) -> dict[str, Any]:
    each = len(arrivals)
    return {
        "intended_s": arrivals, "input_tokens": [prompt] * each, "output_tokens": [answer] * each,
        "first_token_ms": [first_ms] * each, "time_per_token_ms": [gap_ms] * each,
    }  # fmt: skip


def test_terms_are_found_in_steps_that_have_them() -> None:
    steps = various()
    pace = fit(steps, LIMITS)
    assert pace.context == pytest.approx(CONTEXT) and pace.prompt == pytest.approx(PROMPT)
    for count, gap in GAPS.items():
        assert pace.linear[count] + pace.overhead[count] == pytest.approx(gap, abs=1e-9)
    assert pace.linear[64] == pytest.approx(64 * TOKEN)
    assert expected(steps, pace) == pytest.approx(sum(one.seconds for one in steps))


def test_a_prompt_among_others_takes_as_long_in_the_simulator_as_in_the_fit() -> None:
    pace = fit(various(), LIMITS)
    alone = serve([0.0], [30], [1], pace, LIMITS)
    assert alone.first[0] == pytest.approx(step(0, 0, 1, 30).seconds)
    both = serve([0.0, 0.0], [20, 30], [1, 1], pace, LIMITS)
    assert both.first[1] == pytest.approx(step(0, 0, 2, 50).seconds)


def test_a_term_below_nothing_is_left_out() -> None:
    faster = [Step(1, context, 0, 0, 0.004 - context * 1e-6) for context in range(0, 1000, 10)]
    pace = fit(faster, LIMITS)
    assert pace.context == 0 and pace.overhead[1] + pace.linear[1] == pytest.approx(0.0035, rel=0.05)


def test_steps_that_now_and_then_take_longer_count_as_long_as_they_take_in_the_mean() -> None:
    pace = fit([Step(1, 0, 0, 0, 0.002 if n % 10 else 0.012) for n in range(100)], LIMITS)
    assert pace.overhead[1] + pace.linear[1] == pytest.approx(0.003)


def test_a_step_lasts_until_the_next_unless_nobody_is_left() -> None:
    ran = {"decodes": 2, "context": 30, "prompts": 1, "prompt_tokens": 9}
    two, none, idle = ran | {"requests": 2}, ran | {"requests": 0}, {"requests": 1}
    timed = [("step", 0, 3_000, two), ("plan", 0, 1, {}), ("step", 4_000, 3_000, none), ("step", 90_000, 1, idle)]
    events = [{"ph": "X", "name": name, "ts": at, "dur": took, "args": about} for name, at, took, about in timed]
    events = [{"ph": "M", "name": "process_name"}, *reversed(events)]
    assert steps_of(events) == [Step(2, 30, 1, 9, 0.004), Step(2, 30, 1, 9, 0.003)]


def test_the_way_of_a_first_token_is_what_its_steps_do_not_take() -> None:
    pace = fit(various(), LIMITS)
    took = 1e3 * (step(0, 0, 1, 64).seconds + step(0, 0, 1, 6).seconds)  # a prompt of 70 tokens is cut
    assert way([samples([0.0], 70, 5, took + 7, 1.0)], pace, LIMITS) == pytest.approx(0.007)


def test_the_rate_that_fills_every_slot_is_that_of_its_steps() -> None:
    pace = Pace(linear=[TOKEN * n for n in range(69)], overhead=[0.0] * 5, context=0.0, pair=0.0)
    loops = Asked([samples([0.0], 40, 20, 1.0, 1.0)], [])
    assert full_rate(loops, pace, LIMITS) == pytest.approx(1 / (20 * TOKEN + 40 * TOKEN))


def test_a_load_is_judged_by_the_closed_loops_around_it_and_by_its_own_steps() -> None:
    steps = various()
    slow = [Step(one.decodes, one.context, one.prompts, one.prompt_tokens, 3 * one.seconds) for one in steps]
    first, gap = 1e3 * step(0, 0, 1, 10).seconds, 1e3 * (GAPS[1] + CONTEXT * 10)
    quick, late = (Asked([samples([0.0], 10, 2, n * first + 2, 4.0)], found) for n, found in ((1, steps), (3, slow)))
    judged = [
        Asked([samples([9.0, 0.0], 10, 2, first, gap)], steps),
        Asked([samples([0.0] * 3, 10, 2, 3 * first, 3 * gap)], slow),
    ]
    found = judge(judged, [quick, quick, late], LIMITS)
    assert found["requests"] == 5 and 0.33 < found["steps"] < 1
    assert found["measured"] == {"first_token_ms": pytest.approx(3 * first), "time_per_token_ms": pytest.approx(3 * gap)}
    assert judge(judged[:1], [quick, quick], LIMITS)["simulated"] == {
        "first_token_ms": pytest.approx(first + 2), "time_per_token_ms": pytest.approx(gap)
    }  # fmt: skip
    assert judge(judged[:1], [late, late], LIMITS)["simulated"]["time_per_token_ms"] == pytest.approx(3 * gap)
    assert judge(judged[:1], [late, late], LIMITS)["by_own_steps"]["time_per_token_ms"] == pytest.approx(gap)


def test_who_comes_while_all_slots_are_taken_waits() -> None:
    loop = Asked([samples([0.0], 10, 2, 8.0, 4.0)], various())
    crowd = judge([Asked([samples([0.0] * 9, 10, 50, 1.0, 1.0)], various())], [loop, loop], LIMITS)
    assert crowd["simulated"]["first_token_ms"] > 400
