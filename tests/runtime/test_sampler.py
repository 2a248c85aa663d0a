"""The vectorized sampler against a slow one written from the definitions. Run: pytest tests/runtime/test_sampler.py"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Rows
from triune_runtime.sampling import host as module
from triune_runtime.sampling.host import Sampler, SamplingError, uniform_number

VOCABULARY = 40
PROMPT = (1, 2, 3, 3)


def make(params: list[SamplingParams], stop: frozenset[int] = frozenset(), vocabulary: int = VOCABULARY) -> Sampler:
    sampler = Sampler(vocabulary)
    for key, p in enumerate(params):
        sampler.add(Request(key=key, prompt=PROMPT, params=p), stop)
    return sampler


def slow_choice(logits: list[float], p: SamplingParams, answer: list[int], stop: frozenset[int], uniform: float) -> int:
    """One token, by the definitions, with plain Python lists and dictionaries."""
    scores = dict(enumerate(logits))
    for token, bias in p.logit_bias:
        scores[token] += bias
    if p.repetition_penalty != 1:
        for token in {*PROMPT, *answer}:
            scores[token] *= p.repetition_penalty if scores[token] <= 0 else 1 / p.repetition_penalty
    for token in set(answer):
        scores[token] -= p.presence_penalty + p.frequency_penalty * answer.count(token)
    for word in p.bad_words:
        if len(word) == 1 or tuple(answer[-(len(word) - 1) :]) == word[:-1]:
            scores[word[-1]] = -math.inf
    if len(answer) < p.min_tokens:
        for token in stop:
            scores[token] = -math.inf
    ranked = sorted(scores, key=lambda t: (-scores[t], t))
    if p.temperature == 0:
        return ranked[0]
    weights = {t: math.exp((scores[t] - scores[ranked[0]]) / p.temperature) for t in ranked}
    if p.top_k:
        ranked = ranked[: p.top_k]
    if p.top_p < 1:
        total, summed, kept = sum(weights[t] for t in ranked), 0.0, []
        for token in ranked:
            kept.append(token)
            summed += weights[token]
            if summed >= p.top_p * total:
                break
        ranked = kept
    if p.min_p:
        ranked = [t for t in ranked if weights[t] >= p.min_p * weights[ranked[0]]]
    target, summed = uniform * sum(weights[t] for t in ranked), 0.0
    for token in ranked:
        summed += weights[token]
        if summed > target:
            return token
    return ranked[-1]


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 7, 100]),
    top_p=st.sampled_from([1.0, 0.999, 0.8, 0.3, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.7, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (7, -100.0))]),
    bad_words=st.sampled_from([(), ((5,),), ((3, 9), (4,))]),
    min_tokens=st.sampled_from([0, 3]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(params_strategy, min_size=1, max_size=5), seed=st.integers(0, 2**31))
@pytest.mark.parametrize("width", [1024, 4])
def test_every_choice_equals_the_slow_sampler(width: int, rows: list[SamplingParams], seed: int) -> None:
    random, stop = np.random.default_rng(seed), frozenset({0, 11})
    before = module.CANDIDATES
    module.CANDIDATES = width
    try:
        sampler = make(rows, stop)
        answers: list[list[int]] = [[] for _ in rows]
        for step in range(5):
            logits = (random.normal(size=(len(rows), VOCABULARY)) * 3).astype(np.float32)
            chosen = sampler.sample(range(len(rows)), Rows(logits))
            for i, p in enumerate(rows):
                wanted = slow_choice(logits[i].tolist(), p, answers[i], stop, uniform_number(p.seed, step))
                assert chosen[i].token_id == wanted, (i, p, step)
                answers[i].append(wanted)
    finally:
        module.CANDIDATES = before


def test_a_row_is_chosen_alike_alone_and_among_others() -> None:
    random = np.random.default_rng(5)
    rows = [SamplingParams(temperature=1.0, top_p=0.9, seed=i, repetition_penalty=1.1) for i in range(8)]
    logits = random.normal(size=(4, 8, 2000)).astype(np.float32) * 4
    together = make(rows, vocabulary=2000)
    alone = [make([row], vocabulary=2000) for row in rows]
    for step in logits:
        batch = [t.token_id for t in together.sample(range(8), Rows(step))]
        assert batch == [a.sample([0], Rows(step[i : i + 1]))[0].token_id for i, a in enumerate(alone)]


def test_equal_logits_give_the_lowest_id() -> None:
    assert make([SamplingParams()]).sample([0], Rows(np.zeros((1, VOCABULARY), np.float32)))[0].token_id == 0


def test_frequencies_follow_the_distribution() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))
    counts = np.zeros(4)
    for seed in range(4000):
        sampler = make([SamplingParams(temperature=1.0, seed=seed)], vocabulary=4)
        counts[sampler.sample([0], Rows(logits))[0].token_id] += 1
    expected = 4000 * np.array([0.5, 0.25, 0.15, 0.1])
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square with 3 degrees of freedom, one in a thousand


def test_uniform_numbers_are_uniform_and_differ_by_seed_and_position() -> None:
    numbers = [uniform_number(seed, position) for seed in range(100) for position in range(100)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= n < 1 for n in numbers)
    histogram, _ = np.histogram(numbers, 20, (0, 1))
    assert ((histogram - 500) ** 2 / 500).sum() < 43.8  # 19 degrees of freedom, one in a thousand


def test_log_probabilities_are_the_models_own() -> None:
    logits = np.random.default_rng(1).normal(size=(1, VOCABULARY)).astype(np.float32)
    chosen = make([SamplingParams(logprobs=3, temperature=2.0, seed=1)]).sample([0], Rows(logits))[0]
    exact = logits[0].astype(np.float64) - math.log(sum(math.exp(x) for x in logits[0].astype(np.float64)))
    assert chosen.logprob == pytest.approx(exact[chosen.token_id])
    best = sorted(range(VOCABULARY), key=lambda t: -exact[t])[:3]
    assert [t for t, _ in chosen.top] == best
    assert [lp for _, lp in chosen.top] == pytest.approx([exact[t] for t in best])


def test_rows_without_numbers_are_named_and_nothing_is_recorded() -> None:
    sampler = make([SamplingParams(frequency_penalty=50.0)] * 3)
    logits = np.zeros((3, VOCABULARY), np.float32)
    logits[1] = np.nan
    with pytest.raises(SamplingError) as caught:
        sampler.sample([0, 1, 2], Rows(logits))
    assert caught.value.keys == frozenset({1})
    assert [t.token_id for t in sampler.sample([0, 2], Rows(logits), [0, 2])] == [0, 0]  # a recorded 0 would be penalized
