"""Columns of a step's rows, and what they do to logits. Run: pytest tests/runtime/test_sample_rows.py"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.sampling_reference import adjusted
from triune_runtime.request import SamplingParams
from triune_runtime.runner import Best
from triune_runtime.sampling.adjusting import Adjuster
from triune_runtime.sampling.columns import Columns, Sites
from triune_runtime.sampling.host import choose
from triune_runtime.sampling.rows import RowColumns, SampleRow

VOCABULARY = 77  # no multiple of 8 or 32
PROMPT = (1, 2, 3, 3)
STOP = frozenset({0, 11})


class Fixed:
    """A constraint that allows the same tokens all along."""

    finished, error = False, ""

    def __init__(self, bits: NDArray[np.uint32], *, active: bool = True) -> None:
        self._bits, self.active = bits, active

    def allowed(self, bits: NDArray[np.uint32]) -> None:
        bits[:] = self._bits

    def push(self, token_id: int) -> None:
        pass


def row(bits: NDArray[np.uint32] | None = None, active: bool = True, **params: Any) -> SampleRow:
    constraint = None if bits is None else Fixed(bits, active=active)
    return SampleRow(SamplingParams(**params), PROMPT, stop_token_ids=STOP, constraint=constraint)


def allowed(bits: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return np.array([bits[token // 32] >> (token % 32) & 1 for token in range(VOCABULARY)], np.bool_)


KINDS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "top_k": 3},
    {"min_tokens": 2},
    {"logit_bias": ((3, 5.0), (7, -100.0))},
    {"repetition_penalty": 1.4},
    {"presence_penalty": 0.7, "frequency_penalty": -0.2},
    {"bad_words": ((5,), (3, 9), (1, 1, 2))},
    {"repetition_penalty": 0.7, "presence_penalty": 1.5, "min_tokens": 4, "bad_words": ((0, 1),), "logit_bias": ((1, 1.0),)},
]


@settings(max_examples=150, deadline=None)
@given(kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=8), seed=st.integers(0, 2**32))
def test_applying_the_columns_equals_masking_and_penalizing_by_definition(
    kinds: list[tuple[dict[str, Any], bool]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    masks = [random.integers(0, 2**32, 3, np.uint32) if masked else None for _, masked in kinds]
    rows = [row(bits, **params) for (params, _), bits in zip(kinds, masks, strict=True)]
    columns, answers = RowColumns(rows, VOCABULARY), [list[int]() for _ in rows]
    for _ in range(5):
        now = columns.now()
        adjuster = Adjuster(now, VOCABULARY)
        logits = random.normal(size=(len(rows), VOCABULARY)).astype(np.float32)
        logits[random.random(logits.shape) < 0.05] = -np.inf
        for i, bits in enumerate(masks):
            may = None if bits is None else allowed(bits)
            wanted = adjusted(logits[i], rows[i].params, PROMPT, answers[i], STOP, may)
            assert np.array_equal(adjuster.scores(logits[i], i), wanted)
            assert now.adjusted[i] or np.array_equal(wanted, logits[i])
            answers[i].append(int(random.integers(12)))
            rows[i].push(answers[i][-1])


def test_rows_that_nothing_adjusts_share_their_columns_and_count_their_tokens() -> None:
    rows = [row(seed=5), row(temperature=0.5, seed=6), row(logit_bias=((2, 1.0),))]
    columns = RowColumns(rows, VOCABULARY)
    first = columns.now()
    rows[1].push(40)
    second = columns.now(np.array([0, 2, 1]))
    assert first.position.tolist() == [0, 0, 0] and second.position.tolist() == [0, 3, 1]
    for field in dataclasses.fields(Columns):
        if field.name != "position":
            assert getattr(first, field.name) is getattr(second, field.name), field.name


def test_tokens_ahead_count_for_min_tokens_and_seeds_alone() -> None:
    now = RowColumns([row(min_tokens=2, temperature=1.0, presence_penalty=1.0)], VOCABULARY)
    assert len(now.now().bans) == 2 and len(now.now(np.array([2])).bans) == 0
    assert len(now.now(np.array([2])).seen) == 0


@pytest.mark.parametrize(
    ("params", "depends"),
    [
        ({}, False),
        ({"temperature": 1.0, "top_p": 0.5, "logprobs": 3, "min_tokens": 5, "logit_bias": ((1, 1.0),)}, False),
        ({"bad_words": ((4,),)}, False),
        ({"bad_words": ((4, 5),)}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"frequency_penalty": 0.1}, True),
        ({"bits": np.zeros(3, np.uint32), "active": False}, True),
    ],
)
def test_a_row_depends_on_its_last_token_where_that_can_change_its_scores(params: dict[str, Any], depends: bool) -> None:
    one = row(**params)
    columns = RowColumns([one], VOCABULARY)
    assert one.depends is depends
    for token in (4, 4, 4, 4, 4):
        one.push(token)
    if not depends:
        before = columns.now(np.array([1]))
        one.push(7)
        after = columns.now()
        assert Adjuster(before, VOCABULARY).scores(np.zeros(VOCABULARY, np.float32), 0).tolist() == (
            Adjuster(after, VOCABULARY).scores(np.zeros(VOCABULARY, np.float32), 0).tolist()
        )


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.booleans()), min_size=1, max_size=8), seed=st.integers(0, 2**32))
def test_rows_taken_out_are_chosen_as_among_all(kinds: list[tuple[dict[str, Any], bool]], seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [
        row(random.integers(0, 2**32, 3, np.uint32) if masked else None, logprobs=1, seed=seed, **params)
        for params, masked in kinds
    ]
    logits = random.normal(size=(len(rows), VOCABULARY)).astype(np.float32)
    columns = RowColumns(rows, VOCABULARY).now()
    every = choose(logits, columns)
    taken = random.permutation(len(rows))[: random.integers(1, len(rows) + 1)]
    some = choose(logits[taken], columns.take(taken))
    again = choose(logits, columns.take(taken), at=taken.tolist())
    for choice in (some, again):
        assert choice.tokens.tolist() == every.tokens[taken].tolist()
        assert choice.logprobs == {i: every.logprobs[j] for i, j in enumerate(taken.tolist()) if every.usable[j]}


def test_only_plain_rows_take_the_engines_token() -> None:
    rows = [row(), row(logprobs=0), row(temperature=1.0), row(bad_words=((1, 2),)), row(np.full(3, 2**32 - 1, np.uint32))]
    columns = RowColumns(rows, VOCABULARY).now()
    logits = np.zeros((5, VOCABULARY), np.float32)
    logits[:, [20, 30]] = 90
    chosen = choose(logits, columns, best=Best(np.full(5, 30), logits[:, 30]))
    assert columns.plain.tolist() == [True, False, False, False, False]
    assert chosen.tokens[[0, 1, 3, 4]].tolist() == [30, 20, 20, 20] and chosen.usable.all()


def test_a_mask_without_a_token_makes_its_row_unusable() -> None:
    columns = RowColumns([row(np.zeros(3, np.uint32)), row()], VOCABULARY).now()
    assert choose(np.zeros((2, VOCABULARY), np.float32), columns).usable.tolist() == [False, True]


def test_sites_are_found_by_their_row() -> None:
    sites = Sites(np.array([0, 2, 2, 5]), np.array([7, 8, 9, 10]), np.arange(4, dtype=np.float32))
    assert sites.bounds(6).tolist() == [0, 1, 1, 3, 3, 3, 4]
    taken = sites.take(np.array([5, 1, 2]))
    assert (taken.rows.tolist(), taken.tokens.tolist(), taken.values.tolist()) == ([0, 2, 2], [10, 8, 9], [3, 1, 2])
