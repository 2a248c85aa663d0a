"""Guides hold the text that is read. Run: pytest tests/runtime/test_constraints_beginnings.py"""

from __future__ import annotations

import dataclasses
import random
import re
import time

import numpy as np
import pytest

from fakes.spellings import every
from triune_runtime.constraints.bits import unpacked, words
from triune_runtime.constraints.compiling import ConstraintCompiler
from triune_runtime.manifest import EngineManifest, ReasoningMarkers
from triune_runtime.request import Request
from triune_runtime.text.vocabulary import token_bytes

SIZE = 400
MANIFEST = EngineManifest(
    model="tiny", architecture="llama", target="fake", precision="fp32", engine="none", vocab_size=SIZE, cache=(),
    stop_token_ids=(2,),
)  # fmt: skip


def drawn(manifest: EngineManifest, name: str, pattern: str, seed: int, before: list[int]) -> tuple[list[int], bool]:
    """An answer that the guide allows, token by token, and whether it is complete."""
    table = token_bytes(every()[name], SIZE, ("<think>", "</think>"))
    constraint = ConstraintCompiler(manifest, table).make(("regex", pattern), Request(key=1, prompt=(5,)))
    bits, chosen, chance = np.zeros(words(SIZE), np.uint32), list(before), random.Random(seed)
    for token in before:
        constraint.push(token)
    while constraint.settle(time.monotonic() + 60) and not constraint.finished and len(chosen) < 30:
        constraint.allowed(bits)
        (allowed,) = np.nonzero(unpacked(bits, SIZE))
        if not allowed.size:  # no text of this vocabulary begins with a space
            break
        chosen.append(chance.choice(allowed.tolist()))
        constraint.push(chosen[-1])
    return chosen, constraint.finished


@pytest.mark.parametrize("name", ["llama", "llama, no strip", "unigram, always", "byte level, strip"])
@pytest.mark.parametrize("pattern", [" a[bc]", "a? the", "[ab]{2}", "a {1,3}t"])
def test_an_answer_that_a_guide_allows_matches_it_as_the_library_decodes_it(name: str, pattern: str) -> None:
    for seed in range(8):
        chosen, complete = drawn(MANIFEST, name, pattern, seed, [])
        text = every()[name].decode(chosen)
        assert not complete or re.fullmatch(pattern, text), (chosen, text)


def test_a_token_is_allowed_at_the_beginning_for_the_text_that_it_has_there() -> None:
    the = every()["llama"].token_to_id("\N{LOWER ONE EIGHTH BLOCK}the")
    assert any(drawn(MANIFEST, "llama", "the|a", seed, [])[0][0] == the for seed in range(30))


def test_behind_thinking_a_token_has_the_bytes_that_it_has_everywhere() -> None:
    markers = ReasoningMarkers(start="<think>", end="</think>", closing_ids=())
    thinker = dataclasses.replace(MANIFEST, reasoning=markers)
    tokenizer = every()["llama"]
    thinking = [tokenizer.token_to_id(token) for token in ("<think>", "a", "</think>")]
    for seed in range(8):
        chosen, _ = drawn(thinker, "llama", " the", seed, thinking)
        assert tokenizer.decode(chosen) == "<think>a</think> the"
