"""SentencePiece tokenizers rebuilt from GGUF. Run: pytest tests/builder/test_checkpoint_sentencepiece.py"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from triune_builder.checkpoint.gguf_tokenizer import read_vocabulary
from triune_builder.errors import BuildError
from triune_runtime.text.vocabulary import token_bytes

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = "▁t he ▁the ▁▁ er in ▁a re ▁b ab ▁ab the ▁ t h e r i n a b".split()
TOKENS = [*SPECIAL, *BYTES, *PIECES, "<tool>"]
SCORES = [0.0] * (len(SPECIAL) + len(BYTES)) + [-float(i) for i in range(len(PIECES))] + [-1000.0]
TYPES = [2, 3, 3] + [6] * 256 + [1] * len(PIECES) + [4]


def metadata(**more: Any) -> dict[str, Any]:
    own = {
        "model": "llama", "tokens": TOKENS, "scores": SCORES, "token_type": TYPES, "bos_token_id": 1, "eos_token_id": 2,
        "unknown_token_id": 0,
    } | more  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in own.items()}


def rebuilt(**more: Any) -> Tokenizer:
    return Tokenizer.from_str(read_vocabulary(metadata(**more)).tokenizer_json)


def by_definition(text: str) -> list[str]:
    """Letters, of which the two neighbours with the best score, the leftmost of equals, are merged until none can be."""
    score = {token: SCORES[i] for i, token in enumerate(TOKENS) if TYPES[i] == 1}
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(-score[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in score]
        if not pairs:
            break
        at = min(pairs)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    return [piece for s in symbols for piece in ([s] if s in score else [f"<0x{byte:02X}>" for byte in s.encode()])]


TOKENIZER = rebuilt()


@given(st.text(alphabet="theriab é中\n", min_size=1, max_size=24))
def test_text_becomes_the_tokens_with_the_best_scores(text: str) -> None:
    assert TOKENIZER.encode(text, add_special_tokens=False).tokens == by_definition(text)


@given(st.text(max_size=24).filter(lambda text: "<" not in text and "▁" not in text))
def test_the_text_of_the_tokens_is_the_text(text: str) -> None:
    table = token_bytes(TOKENIZER, 0)
    ids = TOKENIZER.encode(text).ids
    assert table.text(ids, table.dropped(ids)) == text == TOKENIZER.decode(ids)


def test_what_the_file_says_around_it_holds() -> None:
    assert TOKENIZER.encode("the").tokens == ["<s>", "▁the"]
    assert TOKENIZER.encode("<tool>the").tokens == ["<s>", "<tool>", "▁the"]
    assert rebuilt(add_bos_token=False, add_eos_token=True).encode("the").tokens == ["▁the", "</s>"]
    assert rebuilt(add_space_prefix=False).encode("the", add_special_tokens=False).tokens == ["the"]


def test_a_file_without_a_score_for_every_token_is_refused() -> None:
    with pytest.raises(BuildError, match=r"tokens and 3 scores"):
        rebuilt(scores=[0.0, 1.0, 2.0])
