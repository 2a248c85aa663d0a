"""The bits of constraints, token by token. Run: pytest tests/runtime/test_constraint_bits.py"""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fakes.constrained import Model
from fakes.schemas import random_schema
from triune_runtime.constraints import Constraint
from triune_runtime.constraints.bits import places, unpacked, words
from triune_runtime.constraints.grammar import GrammarCompiler, GrammarConstraint
from triune_runtime.constraints.guide import Guide, json_schema
from triune_runtime.constraints.pool import Pool
from triune_runtime.constraints.thinking import AfterThinking

POOL = Pool("test")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("model"), thinks=True)


def bits_of(constraint: Constraint, size: int) -> NDArray[np.bool_]:
    bits = np.full(words(size), 0xFFFFFFFF, np.uint32)  # all of it is to be written
    assert constraint.settle(time.monotonic() + 60)
    constraint.allowed(bits)
    return unpacked(bits, size)


@given(st.integers(1, 300).flatmap(lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=40))))
def test_a_bit_is_its_tokens(case: tuple[int, list[int]]) -> None:
    size, tokens = case
    bits = np.zeros(words(size), np.uint32)
    at, masks = places(tokens)
    bits[at] |= masks
    assert len(set(at.tolist())) == len(at)
    assert np.flatnonzero(unpacked(bits, size)).tolist() == sorted(set(tokens))
    assert all(int(bits[t // 32]) >> (t % 32) & 1 for t in tokens)


@pytest.mark.parametrize("number", range(6))
def test_the_tokens_with_a_bit_are_those_that_the_grammar_consumes(model: Model, number: int) -> None:
    """At every step of a random answer each token is tried on a copy, one by one."""
    chance, table, size = random.Random(number), model.table, model.manifest.vocab_size
    guide: Guide = json_schema("x", random_schema(chance, 2)) if number % 3 else ("regex", "(ab?|[0-9]){2,9}")
    ends = sorted(t for t in model.manifest.stop_token_ids if not table[t])
    compiled = GrammarCompiler(table).compile(guide)
    constraint, twin = GrammarConstraint(compiled, ends, len(table), POOL), compiled.matcher.deep_copy()
    for _ in range(30):
        found = bits_of(constraint, size + 40)  # an engine may have more logits than there are tokens
        for token in range(size):
            may = twin.is_accepting() if token in ends else bool(table[token]) and twin.deep_copy().consume_token(token)
            assert found[token] == may, (token, table[token])
        assert not found[len(table) :].any()
        going_on = [t for t in np.flatnonzero(found).tolist() if t not in ends]
        if not going_on or constraint.finished:
            break
        token = chance.choice(going_on)
        constraint.push(token)
        twin.consume_token(token)


def test_before_the_answer_begins_markers_and_line_breaks_have_bits_too(model: Model) -> None:
    table, size, markers = model.table, model.manifest.vocab_size, model.manifest.reasoning
    assert markers is not None
    compiled = GrammarCompiler(table, (markers.start.encode(), markers.end.encode())).compile(("regex", "[0-9]+"))
    inner = bits_of(GrammarConstraint(compiled, [], len(table), POOL), size)
    constraint = AfterThinking(GrammarConstraint(compiled, [], len(table), POOL), markers, table, opened=False, may_open=True)
    opening, closing = table.index(markers.start.encode()), list(markers.closing_ids)
    assert np.flatnonzero(bits_of(constraint, size) & ~inner).tolist() == [opening]
    constraint.push(opening)
    assert not constraint.active
    end = closing.index(table.index(markers.end.encode()))
    for token in closing[: end + 1]:
        constraint.push(token)
    assert constraint.active
    breaks = closing[end + 1 :]
    assert np.flatnonzero(bits_of(constraint, size) & ~inner).tolist() == breaks[:1]
    constraint.push(int(np.flatnonzero(inner)[0]))
    assert not np.flatnonzero(bits_of(constraint, size) & ~inner).any()


def test_a_grammar_that_cannot_go_on_has_no_bits(model: Model, tmp_path: Path) -> None:
    constraint = GrammarConstraint(GrammarCompiler(model.table).compile(("regex", "ab")), [], len(model.table), POOL)
    constraint.push(next(t for t, raw in enumerate(model.table) if raw == b"x"))
    assert not bits_of(constraint, model.manifest.vocab_size).any() and constraint.error


def test_a_token_that_ends_the_answer_never_comes_within_its_grammar(model: Model) -> None:
    """Even if a grammar names it."""
    end = next(t for t in model.manifest.stop_token_ids if not model.table[t])
    compiled = GrammarCompiler(model.table).compile(("grammar", f'start: "x" (<[{end}]> | "z") "y"'))
    constraint = GrammarConstraint(compiled, [end], len(model.table), POOL)
    constraint.push(model.table.index(b"x"))
    found = bits_of(constraint, model.manifest.vocab_size)
    assert found[model.table.index(b"z")] and not found[end]
