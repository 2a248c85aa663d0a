"""Arrivals, lengths, traces, units. Run: pytest tests/load/test_schedule.py"""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triune_load.core.arrivals import KINDS, arrivals, stream_starts
from triune_load.core.lengths import Lengths, parse_lengths
from triune_load.core.slo import Search, parse_slo
from triune_load.core.trace import parse_trace
from triune_load.core.units import parse_duration, parse_numbers
from triune_load.errors import LoadError

RATES = st.floats(0.1, 1000)


def take(kind: str, rate: float, count: int, **more: float) -> list[float]:
    return list(itertools.islice(arrivals(kind, rate, random.Random(0), **more), count))  # type: ignore[arg-type]


@given(st.sampled_from(KINDS), RATES, st.floats(0, 20), st.integers(1, 9))
def test_arrivals_never_go_back(kind: str, rate: float, ramp_s: float, burst: int) -> None:
    found = list(itertools.islice(arrivals(kind, rate, random.Random(0), ramp_s=ramp_s, burst=burst), 200))
    assert found == sorted(found) and found[0] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_is_the_rate_of_requests_whatever_the_kind(kind: str) -> None:
    found = take(kind, 50.0, 20_000, burst=5)
    assert 20_000 / found[-1] == pytest.approx(50, rel=0.05)


def test_gaps_of_poisson_arrivals_vary_as_much_as_they_are_long() -> None:
    found = take("poisson", 10.0, 20_000)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((g - mean) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)


def test_bursts_come_together() -> None:
    found = take("bursts", 10.0, 12, burst=4)
    assert len(set(found)) == 3


def test_a_ramp_has_half_the_requests_of_its_time_at_full_rate() -> None:
    found = take("constant", 100.0, 3000, ramp_s=10.0)
    assert sum(1 for at in found if at < 10) == pytest.approx(500, abs=2)
    assert sum(1 for at in found if 10 <= at < 20) == pytest.approx(1000, abs=2)


def test_streams_begin_one_after_the_other_over_the_ramp() -> None:
    assert stream_starts(4, 8.0) == [0, 2, 4, 6]


@pytest.mark.parametrize(
    "text", ["128", "fixed:128", "uniform:32-96", "normal:150,30", "lognormal:150,0.5", "exponential:100", "choice:32,64,128"]
)
def test_lengths_are_whole_and_above_nothing(text: str) -> None:
    lengths = parse_lengths(text, "x")
    rng = random.Random(1)
    assert all(lengths.draw_tokens(rng) >= 1 for _ in range(500))
    assert parse_lengths(str(lengths), "x") == lengths


@pytest.mark.parametrize(
    "text", ["", "-1", "uniform:9", "uniform:9-3", "normal:1", "zipf:2", "choice:", "exponential:0", "1,2", "x"]
)
def test_lengths_that_are_none_are_refused_by_name(text: str) -> None:
    with pytest.raises(LoadError, match="input-tokens is"):
        parse_lengths(text, "input-tokens")


def test_lengths_have_the_mean_they_say() -> None:
    rng = random.Random(0)
    for text, mean in (("uniform:10-20", 15), ("normal:100,10", 100), ("exponential:50", 50), ("choice:10,30", 20)):
        drawn = [parse_lengths(text, "x").draw_tokens(rng) for _ in range(4000)]
        assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 10**5), st.integers(1, 10**5)), min_size=1, max_size=40))
def test_a_trace_says_the_same_in_csv_and_jsonl(rows: list[tuple[float, int, int]]) -> None:
    csv = "timestamp,input_tokens,output_tokens\n" + "\n".join(f"{at!r},{i},{o}" for at, i, o in rows)
    jsonl = "\n".join(json.dumps({"timestamp": at, "input_length": i, "output_length": o}) for at, i, o in rows)
    found = parse_trace(csv)
    assert found == parse_trace(jsonl)
    assert found[0].at == 0 and [r.at for r in found] == sorted(r.at for r in found) and len(found) == len(rows)


def test_published_traces_are_read_as_they_are() -> None:
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,110,27\n"
    assert [(round(r.at, 3), r.input_tokens, r.output_tokens) for r in parse_trace(azure)] == [(0, 4808, 10), (0.052, 110, 27)]
    mooncake = '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46]}\n{"timestamp": 30535, "input_length": 6472, "output_length": 26}'  # noqa: E501
    assert [r.at for r in parse_trace(mooncake, unit_s=1e-3, speed=2)] == [0, pytest.approx(1.5265)]


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "timestamp,input_tokens,output_tokens\nsoon,1,2\n", '{"timestamp": 1}', "{x"]
)
def test_a_trace_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LoadError):
        parse_trace(text)


def test_durations_and_numbers() -> None:
    assert [parse_duration(t, "x") for t in ("500ms", "20s", "2m", "1.5h", "3")] == [0.5, 20, 120, 5400, 3]
    assert parse_numbers("1,4,16", "x", whole=True) == (1, 4, 16)
    for wrong in ("", "1,x", "0", "-1", "1.5", "inf", "nan"):
        with pytest.raises(LoadError):
            parse_numbers(wrong, "x", whole=True)
    with pytest.raises(LoadError):
        parse_duration("soon", "x")


@given(st.floats(1, 500), st.floats(1, 10), st.floats(10, 600))
def test_a_search_finds_the_limit_from_below(limit: float, least: float, most: float) -> None:
    search, tried = Search(least, most, precision=0.05), 0
    while (load := search.next()) is not None:
        assert least <= load <= most
        search.tell(load, load <= limit)
        tried += 1
        assert tried < 40
    if limit < least:
        assert search.passed is None
    else:
        assert search.passed is not None and search.passed <= limit
        assert search.passed >= min(limit, most) / 1.06


@given(st.integers(1, 300))
def test_a_search_of_streams_finds_the_very_number(limit: int) -> None:
    search = Search(1, 256, precision=0.0, whole=True)
    while (load := search.next()) is not None:
        assert load == int(load)
        search.tell(load, load <= limit)
    assert search.passed == min(limit, 256)


def test_objectives_are_kept_by_every_latency_that_is_named() -> None:
    slo = parse_slo("first_token=500ms,between=50ms")
    assert slo.kept({"first_token": 0.5, "between": 0.05, "end_to_end": 99})
    assert not slo.kept({"first_token": 0.51, "between": 0.01})
    assert slo.kept({"first_token": 0.1, "between": None})
    with pytest.raises(LoadError, match="first"):
        parse_slo("first=1s")


def test_a_fixed_length_draws_itself() -> None:
    assert Lengths("fixed", (7.0,)).draw_tokens(random.Random(0)) == 7
