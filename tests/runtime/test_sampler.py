"""The sampler against one written from the definition. Run: pytest tests/runtime/test_sampler.py"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.sampling_reference import adjusted, chosen
from triune_runtime.request import Request, SamplingParams
from triune_runtime.runner import Rows
from triune_runtime.sampling import drawing
from triune_runtime.sampling.chance import uniform_number
from triune_runtime.sampling.sampler import Sampler, SamplingError

VOCABULARY = 301  # leaves some tokens in no group
PROMPT = (1, 2, 3, 3)
STOP = frozenset({0, 11})


def make(params: list[SamplingParams], stop: frozenset[int] = frozenset(), vocabulary: int = VOCABULARY) -> Sampler:
    sampler = Sampler(vocabulary)
    for key, p in enumerate(params):
        sampler.add(Request(key=key, prompt=PROMPT, params=p), stop)
    return sampler


@pytest.fixture(params=["ranked at once", "few groups", "many groups"])
def ladder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a row of a small vocabulary is searched: as one of a large vocabulary, if need be."""
    group, few, small = {"ranked at once": (64, 128, 4096), "few groups": (16, 3, 0), "many groups": (3, 9, 0)}[request.param]
    monkeypatch.setattr(drawing, "GROUP", group)
    monkeypatch.setattr(drawing, "FEW", few)
    monkeypatch.setattr(drawing, "SMALL", small)


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-6, 0.01, 0.3, 1.0, 2.5, 60.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 7, 12, 100, 10**9]),
    top_p=st.sampled_from([1.0, 1.0, 0.999, 0.95, 0.8, 0.3, 0.01, 0.0]),
    min_p=st.sampled_from([0.0, 0.0, 1e-5, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.7, -0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    logit_bias=st.sampled_from([(), ((3, 5.0), (7, -100.0)), ((4, 0.1), (4, 0.3), (300, 9.0))]),
    bad_words=st.sampled_from([(), ((5,),), ((3, 9), (4,)), ((2, 2, 2), (1, 2))]),
    min_tokens=st.sampled_from([0, 3]),
    seed=st.integers(0, 2**64 - 1),
)
KINDS = (
    "smooth",
    "peaked",
    "tied",
    "tied once scaled",
    "all tied",
    "masked",
    "nearly all masked",
    "one left",
    "none left",
    "a NaN",
    "infinite",
)


def made_up(kind: str, random: np.random.Generator, vocabulary: int = VOCABULARY) -> NDArray[np.float32]:
    """Logits of one row; small ids are likely, so that bans, biases and penalties matter."""
    logits = (random.normal(size=vocabulary) * random.choice([0.5, 3])).astype(np.float32)
    logits[:12] += np.float32(random.choice([0, 4]))
    if kind == "peaked":
        logits[random.choice(vocabulary, 20)] += random.exponential(5, 20).astype(np.float32) + 6
    elif kind == "tied":
        logits = np.round(logits * 2) / 2
    elif kind == "tied once scaled":  # next to a score so much higher, floats cannot tell them apart
        logits *= np.float32(1e-7)
        logits[random.integers(12, vocabulary)] = 5
    elif kind == "all tied":
        logits[:] = random.choice([0, -3])
    elif kind in ("masked", "nearly all masked"):
        logits[random.random(vocabulary) < (0.6 if kind == "masked" else 0.97)] = -np.inf
        logits[random.integers(12, vocabulary)] = 1
    elif kind in ("one left", "none left"):
        logits[:] = -np.inf
        logits[random.integers(12, 300)] = 1 if kind == "one left" else -np.inf
    elif kind in ("a NaN", "infinite"):
        logits[random.integers(vocabulary)] = np.nan if kind == "a NaN" else np.inf
    return logits


@pytest.mark.usefixtures("ladder")
@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(params_strategy, st.lists(st.sampled_from(KINDS), min_size=6, max_size=6)), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_every_choice_is_that_of_the_definition(rows: list[tuple[SamplingParams, list[str]]], seed: int) -> None:
    random = np.random.default_rng(seed)
    sampler = make([p for p, _ in rows], STOP)
    answers: list[list[int]] = [[] for _ in rows]
    for step in range(6):
        logits = np.stack([made_up(kinds[step], random) for _, kinds in rows])
        wanted = []
        for (p, _), row, answer in zip(rows, logits, answers, strict=True):
            scores = adjusted(row, p, PROMPT, answer, STOP)
            wanted.append(chosen(row, scores, p, uniform_number(p.seed, len(answer))))
        found = sample(sampler, range(len(rows)), Rows(logits))
        assert found == {key: token for key, token in enumerate(wanted) if token is not None}, (step, rows)
        for key, token in found.items():
            answers[key].append(token)


def sample(sampler: Sampler, keys: Any, made: Rows) -> dict[int, int]:
    """The tokens of those that have one."""
    try:
        return dict(zip(keys, sampler.sample(keys, made)[0], strict=True))
    except SamplingError as error:
        keys = [key for key in keys if key not in error.keys]
        return dict(zip(keys, sampler.sample(keys, made, keys)[0], strict=True))


def test_a_row_is_chosen_alike_alone_and_among_others() -> None:
    random = np.random.default_rng(5)
    rows = [SamplingParams(temperature=1.0, top_p=0.9, seed=i, repetition_penalty=1.1) for i in range(8)]
    logits = random.normal(size=(4, 8, 9000)).astype(np.float32) * 4
    together = make(rows, vocabulary=9000)
    alone = [make([row], vocabulary=9000) for row in rows]
    for step in logits:
        batch = together.sample(range(8), Rows(step))[0]
        assert batch == [a.sample([0], Rows(step[i : i + 1]))[0][0] for i, a in enumerate(alone)]


def test_equal_logits_give_the_lowest_id() -> None:
    assert make([SamplingParams()]).sample([0], Rows(np.zeros((1, VOCABULARY), np.float32)))[0] == [0]


def test_scores_beyond_all_numbers_give_the_best_token() -> None:
    logits = np.zeros((1, VOCABULARY), np.float32)
    logits[0, 7] = 1e35  # over a temperature of 1e-6 infinite
    assert make([SamplingParams(temperature=1e-6, seed=3)]).sample([0], Rows(logits))[0][0] == 7


def test_frequencies_follow_the_distribution() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], np.float32))
    counts = np.zeros(4)
    for seed in range(4000):
        sampler = make([SamplingParams(temperature=1.0, seed=seed)], vocabulary=4)
        counts[sampler.sample([0], Rows(logits))[0][0]] += 1
    expected = 4000 * np.array([0.5, 0.25, 0.15, 0.1])
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # chi-square with 3 degrees of freedom, one in a thousand


@pytest.mark.parametrize("wanted", [0, 3, 20, VOCABULARY + 5])
@pytest.mark.parametrize("kind", ["smooth", "tied", "one left"])
def test_log_probabilities_are_the_models_own(kind: str, wanted: int) -> None:
    logits = made_up(kind, np.random.default_rng(1))
    chosen = make([SamplingParams(logprobs=wanted, temperature=2.0, seed=1)]).sample([0], Rows(logits[None]))[1][0]
    exact = logits.astype(np.float64) - math.log(np.exp(logits.astype(np.float64)).sum())
    assert chosen.logprob == pytest.approx(exact[chosen.token_id])
    best = sorted(range(VOCABULARY), key=lambda t: (-exact[t], t))[:wanted]
    assert [t for t, _ in chosen.top] == best
    assert [lp for _, lp in chosen.top] == pytest.approx([exact[t] for t in best])


def test_rows_without_numbers_are_named_and_nothing_is_recorded() -> None:
    sampler = make([SamplingParams(frequency_penalty=50.0)] * 3)
    logits = np.zeros((3, VOCABULARY), np.float32)
    logits[1] = np.nan
    with pytest.raises(SamplingError) as caught:
        sampler.sample([0, 1, 2], Rows(logits))
    assert caught.value.keys == frozenset({1})
    assert sampler.sample([0, 2], Rows(logits), [0, 2])[0] == [0, 0]  # a recorded 0 would be penalized


@pytest.mark.parametrize("params", [{}, {"temperature": 0.8}, {"temperature": 1.5, "top_p": 0.9, "presence_penalty": 0.5}])
def test_a_guess_by_the_models_own_logits_is_the_token_that_comes(params: dict[str, Any]) -> None:
    random = np.random.default_rng(4)
    sampler = make([SamplingParams(**params, seed=8)])
    for _ in range(20):
        first, second = (random.normal(size=VOCABULARY).astype(np.float32) for _ in range(2))
        guesses = sampler.guess(0, first), sampler.guess(0, second, ahead=1)
        assert sampler.sample([0], Rows(first[None]))[0][0] == guesses[0]
        if not params.get("presence_penalty"):
            assert sampler.sample([0], Rows(second[None]))[0][0] == guesses[1]
