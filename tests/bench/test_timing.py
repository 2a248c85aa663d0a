"""Figures from arrivals, against hand-made streams. Run: pytest tests/bench/test_timing.py"""

from __future__ import annotations

import statistics

import pytest
from bench.prompts import prompt
from bench.timing import Round, Stream, median_round, percentile, ratio, summarize
from hypothesis import given
from hypothesis import strategies as st


def round_of(tokens_per_s: float) -> Round:
    return Round(tokens_per_s, 0.0, 0.0, 0.0, 0.0)


def test_throughput_spans_from_the_first_request_to_the_last_token() -> None:
    streams = [Stream(10.0, ((11.0, 1), (12.0, 3))), Stream(10.5, ((11.5, 2), (14.0, 2)))]
    assert summarize(streams, 4).tokens_per_s == pytest.approx(8 / 4)


def test_a_piece_of_several_tokens_counts_as_several_between_tokens() -> None:
    assert summarize([Stream(0.0, ((1.0, 1), (3.0, 4)))], 5).between_tokens_s == pytest.approx(0.5)


def test_a_stall_shows_in_the_slowest_tokens_and_not_in_the_median() -> None:
    times = [1.0 + 0.1 * i for i in range(10)]
    stalled = [*times, times[-1] + 5.0]
    figures = summarize([Stream(0.0, tuple((t, 1) for t in stalled))], 11)
    assert figures.between_tokens_s == pytest.approx(0.1)
    assert figures.between_tokens_p95_s == pytest.approx(5.0)


def test_first_token_is_counted_from_its_own_request() -> None:
    streams = [Stream(0.0, ((1.0, 1),)), Stream(5.0, ((5.2, 1),)), Stream(9.0, ((9.4, 1),))]
    assert summarize(streams, 1).first_token_s == pytest.approx(0.4)


@pytest.mark.parametrize("streams", [[], [Stream(0.0, ())], [Stream(0.0, ((1.0, 2),)), Stream(0.0, ((1.0, 1),))]])
def test_answers_of_another_length_are_not_compared(streams: list[Stream]) -> None:
    with pytest.raises(ValueError, match="must give 2 tokens"):
        summarize(streams, 2)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.95, 4), (1.0, 4), (0.25, 1)])
def test_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_leaves_no_more_than_its_share_above_and_no_smaller_value_does(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert sum(v <= found for v in values) >= share * len(values) - 1e-6
    assert sum(v < found for v in values) < share * len(values) + 1e-6


@given(st.lists(st.lists(st.tuples(st.floats(0.001, 10), st.integers(1, 5)), min_size=1), min_size=1, max_size=5))
def test_gaps_of_a_stream_add_up_to_its_time(pieces: list[list[tuple[float, int]]]) -> None:
    for piece in pieces:
        at, arrivals = 0.0, []
        for pause, count in piece:
            at += pause
            arrivals.append((at, count))
        stream = Stream(0.0, tuple(arrivals))
        figures = summarize([stream], stream.tokens)
        assert figures.first_token_s == pytest.approx(piece[0][0])
        assert figures.tokens_per_s == pytest.approx(stream.tokens / at)
        if len(piece) > 1:
            gaps = [pause / count for pause, count in piece[1:] for _ in range(count)]
            assert figures.between_tokens_s == pytest.approx(statistics.median(gaps), abs=1e-9)


def test_medians_are_taken_figure_by_figure() -> None:
    rounds = [Round(1, 9, 3, 4, 5), Round(2, 7, 3, 4, 5), Round(3, 8, 3, 4, 5)]
    assert median_round(rounds) == Round(2, 8, 3, 4, 5)


def test_a_ratio_compares_round_by_round() -> None:
    """The machine was twice as slow in round 1: both were, so the ratio is not touched."""
    ours = {0: round_of(100), 1: round_of(50), 2: round_of(98)}
    theirs = {0: round_of(50), 1: round_of(25), 2: round_of(49)}
    assert ratio(ours, theirs) == pytest.approx(2.0)


def test_a_ratio_leaves_out_rounds_that_one_of_them_lacks() -> None:
    assert ratio({0: round_of(30), 1: round_of(10)}, {1: round_of(5), 2: round_of(1)}) == pytest.approx(2.0)
    assert ratio({0: round_of(30)}, {}) is None


def test_prompts_differ_from_their_first_words_on() -> None:
    texts = [prompt(i) for i in range(64)]
    assert len({t[:16] for t in texts}) == 64
    assert all(500 < len(t) < 900 for t in texts)
    assert texts == [prompt(i) for i in range(64)]
