"""Draws from few ranked tokens and a bounded sum, against the definition. Run: pytest tests/runtime/test_drawing.py"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.sampling_reference import chosen, weighed
from triune_runtime.request import SamplingParams
from triune_runtime.sampling import drawing
from triune_runtime.sampling.chance import uniform_number, uniform_numbers
from triune_runtime.sampling.drawing import Odds, Scores, draw
from triune_runtime.sampling.weights import BEST, COARSE, FARTHEST, weigh

SHAPES = ((0, 1.0, 0.0), (0, 0.95, 0.0), (0, 0.999, 0.0), (20, 0.8, 0.0), (0, 1.0, 0.05), (0, 0.9, 0.01), (200, 1.0, 0.0))


def equal_choices(rows: int, vocabulary: int, seed: int) -> int:
    """In how many of so many random rows the draw is that of the definition."""
    random, equal = np.random.default_rng(seed), 0
    for number in range(rows):
        scores = random.standard_normal(vocabulary, np.float32) * np.float32(random.uniform(0.3, 4))
        scores[random.integers(0, vocabulary, 30)] += random.exponential(5, 30).astype(np.float32)
        temperature, (top_k, top_p, min_p) = float(random.uniform(0.2, 2)), SHAPES[number % len(SHAPES)]
        uniform = uniform_number(seed, number)
        token = draw(Scores(scores), Odds(np.float32(temperature), top_k, top_p, min_p, uniform))
        p = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        equal += token == chosen(scores, scores, p, uniform)
    return equal


def test_a_large_vocabulary_gives_the_choice_of_the_definition() -> None:
    assert equal_choices(80, 151_936, 1) == 80


@pytest.mark.slow
def test_100_000_rows_give_the_choices_of_the_definition() -> None:
    assert equal_choices(100_000, 4999, 2) == 100_000


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([0.05, 0.5, 3.0]),
    top_p=st.sampled_from([1.0, 0.95]),
    last=st.sampled_from([0, 1, 2, 40, 600, 2000]),
    away=st.sampled_from([0, 1e-17, 1e-16, -1e-16, 1e-9, -1e-9, 1e-7, -1e-7, 1e-6, -1e-6, 1e-5, -1e-5, 1e-4]),
)
def test_numbers_at_the_very_border_of_two_tokens_draw_as_defined(
    seed: int, spread: float, top_p: float, last: int, away: float
) -> None:
    """Where a sum in another order, or of floats, could draw the neighbour."""
    random = np.random.default_rng(seed)
    scores = random.standard_normal(5000, np.float32) * np.float32(spread)
    weights = np.sort(weigh(scores.max() - scores))[::-1]
    if top_p < 1:
        weights = weights[: int((np.cumsum(weights) < top_p * weights.sum()).sum()) + 1]
    summed = np.cumsum(weights)
    uniform = float(min(max(summed[min(last, len(summed) - 1)] / summed[-1] + away, 0.0), 1 - 2.0**-53))
    token = draw(Scores(scores), Odds(np.float32(1), 0, top_p, 0.0, uniform))
    assert token == chosen(scores, scores, SamplingParams(temperature=1.0, top_p=top_p), uniform)


def test_a_top_p_at_the_very_border_of_two_tokens_cuts_as_defined() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        scores = random.standard_normal(5000, np.float32) * 3
        weights = np.sort(weigh(scores.max() - scores))[::-1]
        top_p = float(np.cumsum(weights)[random.integers(500)] / weights.sum() + random.choice([0, 1e-16, -1e-16, 1e-7, -1e-7]))
        uniform = 1 - 2.0**-53  # the last token that is kept
        token = draw(Scores(scores), Odds(np.float32(1), 0, top_p, 0.0, uniform))
        assert token == chosen(scores, scores, SamplingParams(temperature=1.0, top_p=top_p), uniform)


def test_the_sum_of_float32_exponentials_is_within_its_bounds() -> None:
    random = np.random.default_rng(6)
    for vocabulary, spread in ((4100, 0.0), (151_936, 0.1), (151_936, 3.0), (200_001, 20.0)):
        scores = random.standard_normal(vocabulary, np.float32) * np.float32(spread)
        temperature = np.float32(0.7)
        top = scores.max() / temperature
        exact = math.fsum(np.exp((scores / temperature - top).astype(np.float64)))
        *_, (low, high) = drawing._bounds(scores, top, temperature, BEST, (vocabulary - 1, np.float32(0)))
        for total in (exact * BEST, int(weigh(top - scores / temperature).sum())):
            assert low < total * (1 - 5e-6) and total * (1 + 5e-6) < high, "half of the tolerance is not used up"


def test_weights_are_exponentials_that_never_rise() -> None:
    below = np.concatenate([np.linspace(0, 31, 2_000_001), np.geomspace(1e-44, 1, 200_001), [np.inf]]).astype(np.float32)
    below.sort()
    weights = weigh(below)
    exact = np.exp(-below.astype(np.float64))
    assert (np.abs(weights / BEST - exact) <= 4e-7 * exact + 2.0**-42).all()
    assert (np.diff(weights) <= 0).all() and weights[0] == BEST and not weigh(FARTHEST[None]).any()


def test_weights_never_change() -> None:
    """Else the same seed would give another text than it did; and a device another one than the host."""
    assert hashlib.sha256(COARSE.astype("<u4").tobytes()).hexdigest()[:16] == "fd4f4e7d8f70a719"
    assert weigh(np.float32([0, 1e-7, 0.1, 1, 10, 20, 29])).tolist() == [
        4398046511104,
        4398046511104,
        3979517168244,
        1617951020693,
        199671030,
        9065,
        1,
    ]


def test_weights_are_those_of_the_definition() -> None:
    below = np.abs(np.random.default_rng(4).standard_normal(20_000, np.float32)) * np.geomspace(
        1e-9, 12, 20_000, dtype=np.float32
    )
    assert weigh(below).tolist() == weighed(below).tolist()


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), min_size=1))
def test_numbers_of_many_rows_are_the_bits_of_one(pairs: list[tuple[int, int]]) -> None:
    seeds, positions = zip(*pairs, strict=True)
    many = uniform_numbers(np.array(seeds, np.uint64), np.array(positions, np.int64))
    assert many.tolist() == [uniform_number(seed, position) for seed, position in pairs]


def test_uniform_numbers_never_change() -> None:
    """Else the same seed would give another text than it did."""
    assert uniform_number(0, 0) == 0.8833108082136426
    assert uniform_number(2**64 - 1, 1000) == 0.9290188979218957


def test_uniform_numbers_are_uniform_and_differ_by_seed_and_position() -> None:
    numbers = [uniform_number(seed, position) for seed in range(100) for position in range(100)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= n < 1 for n in numbers)
    histogram, _ = np.histogram(numbers, 20, (0, 1))
    assert ((histogram - 500) ** 2 / 500).sum() < 43.8  # 19 degrees of freedom, one in a thousand
