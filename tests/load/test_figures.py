"""Figures from answers, statistics, thresholds, comparisons. Run: pytest tests/load/test_figures.py"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_load.core.answer import UNKNOWN, Answer, Event, Failure
from triune_load.core.compare import compare, mann_whitney
from triune_load.core.figures import figures, gaps, latencies, series
from triune_load.core.request import Request
from triune_load.core.saturation import find_saturation
from triune_load.core.slo import parse_slo
from triune_load.core.statistics import describe, interval_of_share
from triune_load.core.thresholds import judge, parse_thresholds
from triune_load.errors import LoadError


def request(name: str = "r") -> Request:
    return Request(
        identity=name, part="p", messages=({"role": "user", "content": "x"},), chat=False, max_tokens=99, temperature=0, seed=0
    )


def answer(intended: float, *chunks: tuple[float, int], failure: str = "", cancelled: bool = False) -> Answer:
    found = Answer(request(f"r{intended}"), intended, started=intended, sent=intended)
    for at, tokens in chunks:
        found.take(at, Event(text="x" * tokens, tokens=tokens))
    found.ended = chunks[-1][0] if chunks else intended
    found.failure = Failure(failure, "told") if failure else None
    found.cancelled = cancelled
    return found


def test_latency_counts_from_when_the_request_was_due() -> None:
    one = answer(1.0, (1.5, 1), (1.6, 1), (1.9, 2))
    one.sent = 1.4  # late: the user waited all the same
    assert latencies(one) == {"first_token": 0.5, "between": pytest.approx(0.4 / 3), "end_to_end": pytest.approx(0.9)}
    assert gaps(one) == [pytest.approx(0.1), pytest.approx(0.15), pytest.approx(0.15)]


@given(st.lists(st.tuples(st.floats(0.001, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_gaps_add_up_to_the_time_between_the_first_chunk_and_the_last_with_tokens(steps: list[tuple[float, int]]) -> None:
    at, chunks = 0.0, []
    for step, tokens in steps:
        at += step
        chunks.append((at, tokens))
    one = answer(0.0, *chunks)
    brought = [when for when, tokens in chunks if tokens]
    if brought:
        assert sum(gaps(one)) == pytest.approx(brought[-1] - one.times[0])
        assert len(gaps(one)) == sum(one.tokens) - one.tokens[0]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200))
def test_tokens_of_chunks_that_say_none_add_up_to_the_answers(sizes: list[int], total: int) -> None:
    one = Answer(request(), 0.0, output_tokens=total)
    one.times, one.tokens, one.sizes = array("d", sizes), array("i", [UNKNOWN] * len(sizes)), array("i", sizes)
    assert sum(one.tokens_of_chunks()) == total and min(one.tokens_of_chunks()) >= 0


def test_figures_of_a_known_run() -> None:
    answers = [answer(0.0, (1.0, 1), (2.0, 1)), answer(0.0, (2.0, 1), (4.0, 3)), answer(1.0, failure="overloaded")]
    answers.append(answer(1.0, (1.5, 2), cancelled=True))
    found = figures(answers, begin=0.0, slo=parse_slo("first_token=1s"))
    assert (found["requests"], found["whole"], found["left"], found["failed"]) == (4, 2, 1, 1)
    assert found["tokens_per_s"] == pytest.approx(8 / 4) and found["requests_per_s"] == 0.5
    assert found["good_share"] == pytest.approx(1 / 3, abs=1e-6) and found["goodput_per_s"] == 0.25
    assert found["errors"] == [{"kind": "overloaded", "count": 1, "example": "told"}]
    assert found["latencies"]["first_token_ms"]["p50"] == 1000
    assert found["samples"]["output_tokens"] == [2, 4, 0, 2] and found["samples"]["input_tokens"] == [None] * 4
    assert found["latencies"]["between_ms"]["count"] == 4


def test_a_wrong_answer_is_not_good() -> None:
    answers = [answer(0.0, (0.1, 1))]
    slo = parse_slo("first_token=1s")
    assert figures(answers, begin=0, slo=slo, violating=frozenset({"r0.0"}))["good_share"] == 0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=60))
def test_every_start_end_and_token_is_in_one_second(pairs: list[tuple[float, float]]) -> None:
    answers = [answer(a, (a + b, 2)) for a, b in pairs]
    found = series(answers, begin=0.0)
    assert sum(found["started"]) == sum(found["ended"]) == len(answers)
    assert sum(found["tokens"]) == pytest.approx(2 * len(answers))
    assert found["open"][-1] == 0


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300))
def test_percentiles_are_values_in_order_within_the_range(values: list[float]) -> None:
    found = describe(values)
    assert found is not None
    ordered = [found.least, *found.percentiles.values(), found.most]
    assert ordered == sorted(ordered) and set(found.percentiles.values()) <= set(values)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for n in range(100):
        found = describe(rng.exponential(10, 200), seed=n)
        assert found is not None
        low, high = found.intervals["p50"]
        hits += low <= 10 * np.log(2) <= high
    assert hits >= 88


def test_tokens_of_one_request_are_not_taken_for_independent() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(100, 20, 30)
    values, owners = np.repeat(means, 50), np.repeat(np.arange(30), 50)
    grouped, alone = describe(values, owners), describe(values)
    assert grouped is not None and alone is not None

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(grouped.intervals["mean"]) > 4 * width(alone.intervals["mean"])


def test_the_interval_of_a_share() -> None:
    assert interval_of_share(0, 0) == (0, 1)
    low, high = interval_of_share(95, 100)
    assert 0.88 < low < 0.95 < high < 0.98


def step(load: str, kind: str, value: float, **figures: Any) -> dict[str, Any]:
    return {
        "load": load,
        "kind": kind,
        "value": value,
        "figures": {"samples": {"intended_s": []}, "requests_per_s": 0.0, "requests": 9} | figures,
    }


def test_streams_saturate_where_more_of_them_give_no_more() -> None:
    steps = [step(str(n), "streams", n, tokens_per_s=t) for n, t in ((1, 100), (4, 300), (8, 460), (16, 480), (32, 470))]
    found = find_saturation(steps, slo_share=0.95)
    assert found is not None and found.value == 8


def test_objectives_say_where_it_is_full() -> None:
    steps = [step(str(n), "rate", n, tokens_per_s=n, good_share=s) for n, s in ((1, 1.0), (2, 0.97), (4, 0.5))]
    found = find_saturation(steps, slo_share=0.95)
    assert found is not None and found.value == 2
    assert find_saturation(steps[:1], slo_share=0.95) is None


def test_a_load_that_is_not_full_is_not_said_to_be() -> None:
    steps = [step(str(n), "streams", n, tokens_per_s=t) for n, t in ((1, 100), (4, 300), (8, 460))]
    found = find_saturation(steps, slo_share=0.95)
    assert found is not None and (found.value, found.reached) == (8, False)
    lucky = [step(str(n), "rate", n, tokens_per_s=n, good_share=s) for n, s in ((1, 1.0), (2, 0.5), (4, 1.0))]
    found = find_saturation(lucky, slo_share=0.95)
    assert found is not None and (found.value, found.reached) == (1, True)


def test_rates_saturate_where_the_server_falls_behind() -> None:
    def at(rate: float, served: float) -> dict[str, Any]:
        samples = {"intended_s": [n / rate for n in range(101)]}
        return step(f"{rate}", "rate", rate, tokens_per_s=1.0, requests_per_s=served, samples=samples)

    found = find_saturation([at(1, 1.0), at(2, 1.95), at(4, 2.5)], slo_share=0.95)
    assert found is not None and found.value == 2


def test_thresholds_are_read_and_judged() -> None:
    kept, broken, unknown = parse_thresholds({"tokens_per_s": ">= 5", "first_token_ms.p95": "<= 100", "nothing.p50": "< 1"})
    found = {"tokens_per_s": 5.0, "latencies": {"first_token_ms": {"p95": 101.0}}}
    assert judge(kept, found).kept
    assert (judge(broken, found).kept, judge(broken, found).value) == (False, 101.0)
    assert not judge(unknown, found).kept
    with pytest.raises(LoadError):
        parse_thresholds({"tokens_per_s": "about 5"})


def result(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    listed = [round(float(v), 2) for v in values]
    samples = {"first_token_ms": listed, "time_per_token_ms": listed, "end_to_end_ms": [None, *listed]}
    return {"steps": [{"load": "4 streams", "figures": {"tokens_per_s": 100.0, "samples": samples}}]}


def test_a_slower_server_is_called_worse_and_a_like_one_is_not() -> None:
    rng = np.random.default_rng(1)
    same, slower = result(rng.gamma(4, 25, 300)), result(1.4 * rng.gamma(4, 25, 300))
    first = {d.figure: d for d in compare(same, slower)}
    assert first["first token p50, ms"].better is False and first["first token p50, ms"].ratio == pytest.approx(1.4, rel=0.15)
    assert {d.better for d in compare(same, result(rng.gamma(4, 25, 300)))} == {None}


def test_the_test_of_ranks_is_even_when_nothing_differs() -> None:
    assert mann_whitney(np.ones(50), np.ones(60)) == 1.0
    rng = np.random.default_rng(2)
    found = [mann_whitney(rng.normal(size=40), rng.normal(size=60)) for _ in range(300)]
    assert 0.02 <= sum(p < 0.05 for p in found) / 300 <= 0.09
