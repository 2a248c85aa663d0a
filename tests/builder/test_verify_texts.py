"""The texts a build judges by: the bundled ones, or the model's own. Run: pytest tests/builder/test_verify_texts.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from fakes.tiny_llama import byte_tokenizer
from triune_builder.checkpoint.folder import open_folder
from triune_builder.errors import BuildError
from triune_builder.verify.measure import Sizes, text_windows
from triune_builder.verify.texts import texts_of, token_ids

OWN: dict[str, Any] = {"calibration": ["a"], "evaluation": ["b", "c"], "prompts": ["d\nd"]}
NANO = Path(__file__).parents[2] / "models" / "r1-nano" / "checkpoint"


def test_a_model_without_texts_is_judged_by_the_bundled_ones() -> None:
    texts = texts_of({})
    kinds = ["english", "chat", "chinese", "code", "data", "languages", "maths", "terms"]
    assert [kind for kind, _ in texts.evaluation] == kinds and len(texts.calibration) == len(kinds)
    assert len(texts.prompts) == 16
    judged = {line for _, text in texts.evaluation for line in text.splitlines() if len(line) > 40}
    assert not judged & {line for text in texts.calibration for line in text.splitlines()}  # they are kept apart


def test_a_models_own_texts_take_their_place_and_decide_the_build() -> None:
    checkpoint = open_folder(NANO)
    texts = texts_of(checkpoint.verification)
    assert texts.prompts[0].startswith("<｜begin▁of▁sentence｜>") and len(texts.evaluation) == 16
    assert {kind for kind, _ in texts.evaluation} == {"own"}
    assert NANO / "verification.json" in checkpoint.files


@pytest.mark.parametrize(
    "change", [{"prompts": []}, {"prompts": "d"}, {"evaluation": [3]}, {"calibration": [""]}, {"more": ["x"]}]
)
def test_texts_that_are_no_lists_of_texts_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=r"verification\.json") as caught:
        texts_of(OWN | change)
    (name,) = change
    assert name in str(caught.value)
    assert texts_of(json.loads(json.dumps(OWN))).prompts == ("d\nd",)


def test_a_text_is_read_whole_whatever_the_tokenizer_says_of_truncation_and_padding() -> None:
    cut = Tokenizer.from_str(byte_tokenizer())
    cut.enable_truncation(3)
    cut.enable_padding(length=8)
    assert [len(ids) for ids in token_ids(cut.to_str(), ["hello", "world, hello"])] == [5, 12]


def test_texts_of_which_nothing_is_left_are_refused() -> None:
    silent = json.dumps(
        json.loads(byte_tokenizer()) | {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}
    )
    assert token_ids(silent, ["a", "  "]) == [token_ids(byte_tokenizer(), ["a"])[0], []]
    with pytest.raises(BuildError, match="no token of the texts that a build is judged by, such as '  '") as caught:
        token_ids(silent, ["  "])
    assert caught.value.hint


def test_each_text_is_read_from_an_empty_cache_and_none_is_read_twice() -> None:
    texts = [("a", list(range(10))), ("a", list(range(100, 103))), ("a", list(range(200, 240)))]
    windows, _ = text_windows(texts, Sizes(text=40, window=16), 1000)
    assert [len(w.tokens) for w in windows] == sorted((len(w.tokens) for w in windows), reverse=True)
    read = {w.tokens[0]: w for w in windows}
    assert read[0].tokens == tuple(range(9)) and read[0].followers == tuple(range(1, 10))
    assert read[100].followers == (101, 102)
    assert sum(len(w.followers) for w in windows) == 40


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50)), min_size=1, max_size=8), st.integers(8, 120))
def test_each_kind_of_text_gets_its_share_of_the_tokens(sizes: list[tuple[str, int]], most: int) -> None:
    texts = [(kind, list(range(count))) for kind, count in sizes]
    windows, _ = text_windows(texts, Sizes(text=most, window=16), 1000)
    kinds = {kind for kind, _ in sizes}
    have = {kind: sum(max(count - 1, 0) for name, count in sizes if name == kind) for kind in kinds}
    read = {kind: sum(len(w.followers) for w in windows if w.name == kind) for kind in kinds}
    assert sum(read.values()) <= most and all(read[kind] <= have[kind] for kind in kinds)
    fair = most // len(kinds)
    assert all(read[kind] >= min(have[kind], fair) for kind in kinds)
    assert sum(read.values()) > most - len(kinds) or read == have  # nothing is left over


def test_a_tokenizer_that_fails_at_a_text_is_refused() -> None:
    """The library panics, which is no Exception."""
    hostile = Tokenizer.from_str(byte_tokenizer())
    hostile.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    with pytest.raises(BuildError, match=r"the tokenizer fails at .* judged by: .*retry-limit") as caught:
        token_ids(hostile.to_str(), ["a" * 40])
    assert "\n" not in str(caught.value.args[0])
