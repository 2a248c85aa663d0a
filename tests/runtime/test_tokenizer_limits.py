"""What a hostile tokenizer may do with a text is bounded. Run: pytest tests/runtime/test_tokenizer_limits.py"""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from triune_runtime.errors import ManifestError, RequestError
from triune_runtime.text.growth import check_growth
from triune_runtime.text.tokenizer import TextTokenizer

LONG = "x" * 1000


def tokenizer(normalizer: Any = None) -> Tokenizer:
    made = Tokenizer(models.BPE(vocab={"a": 0, "x": 1, "u": 2}, merges=[], unk_token="u"))
    if normalizer is not None:
        made.normalizer = normalizer
    return made


MULTIPLYING = {
    "a letter": normalizers.Replace("a", LONG),
    "a pattern": normalizers.Replace(Regex("[a-z]"), LONG),
    "nothing": normalizers.Replace(Regex(""), LONG),
    "again and again": normalizers.Sequence([normalizers.Replace("a", "aa")] * 30),
    "nested": normalizers.Sequence([normalizers.Sequence([normalizers.Replace("a", "a" * 20)] * 2)]),
    "in front": normalizers.Prepend("x" * 10**6),
}
USUAL = {
    "none": None,
    "Llama": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "Qwen": normalizers.NFC(),
    "ALBERT": normalizers.Sequence(
        [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
         normalizers.Lowercase(), normalizers.Replace(Regex(" {2,}"), " ")]
    ),
    "BERT": normalizers.BertNormalizer(),
    "T5": normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "▁")]),
}  # fmt: skip


@pytest.mark.parametrize("normalizer", MULTIPLYING.values(), ids=MULTIPLYING)
def test_a_normalizer_that_multiplies_texts_is_refused_before_it_runs(normalizer: Any) -> None:
    with pytest.raises(ManifestError, match=r"the tokenizer's normalizer may make .* of one; at most 256 are served"):
        TextTokenizer(tokenizer(normalizer), 3)


@pytest.mark.parametrize("normalizer", USUAL.values(), ids=USUAL)
def test_usual_normalizers_are_served(normalizer: Any) -> None:
    check_growth(tokenizer(normalizer))


def test_a_pattern_that_searches_for_too_long_is_the_requests_refusal() -> None:
    """The library panics, which is no Exception."""
    hostile = tokenizer()
    hostile.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+b"), "isolated")
    served = TextTokenizer(hostile, 3)
    for encode in (served.encode, served.encode_rendered):
        with pytest.raises(RequestError, match="the model's tokenizer cannot make tokens of this text") as caught:
            encode("a" * 40)
        assert caught.value.code == "unsupported" and "Onig" not in str(caught.value)
        assert encode("xx") == [1, 1]
