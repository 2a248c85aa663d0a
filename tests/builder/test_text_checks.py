"""A tokenizer or template that the server could not serve stops the dry run. Run: pytest tests/builder/test_text_checks.py"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fakes.spellings import byte_level, every, llama
from fakes.tiny_llama import byte_tokenizer, tiny_checkpoint
from triune_builder.errors import BuildError
from triune_builder.text_checks import check_text

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


def tried(tokenizer: Tokenizer | str | None = None, template: str | None = None, tool_template: str | None = None) -> None:
    """Raises: BuildError."""
    text = byte_tokenizer() if tokenizer is None else tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
    checkpoint = tiny_checkpoint(seed=0, files=(), num_hidden_layers=1)
    check_text(
        dataclasses.replace(checkpoint, tokenizer_json=text, chat_template=template, tool_template=tool_template)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", ["llama", "unigram, first", "byte level, nfkc"])
def test_tokenizers_that_are_served_pass(name: str) -> None:
    tried(every()[name], CHATML)


def test_a_template_may_refuse_some_chats_and_know_only_tools_or_none() -> None:
    tried(template="{% if messages|length != 2 %}{{ raise_exception('two!') }}{% endif %}x", tool_template="{{ tools|length }}")


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def normalizing(pattern: str, content: str, times: int) -> str:
    """Put into the text: the library would carry it out here already, on the added tokens."""
    raw = json.loads(byte_level().to_str())
    step = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    return json.dumps(raw | {"normalizer": {"type": "Sequence", "normalizers": [step] * times}})


def silent() -> Tokenizer:
    tokenizer = Tokenizer.from_str(byte_tokenizer())
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "removed", invert=True)
    return tokenizer


def inexact() -> Tokenizer:
    tokenizer = llama()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (word_piece, "decoder \\(WordPiece\\) cannot be served exactly"),
        (inexact, "Metaspace comes after ByteFallback"),
        (lambda: normalizing("o", "o" * 1000, 40), "they take too much memory"),
        (lambda: normalizing("", "a" * 1000, 12), "they take too much memory|tokenizer.json cannot be read"),
        (lambda: normalizing("l", "l" * 100, 2), "normalizer may make 10,000 characters of one"),
        (silent, "makes no token of usual texts, such as 'Hello, world'"),
        (lambda: "{}", "tokenizer.json cannot be read"),
        (lambda: '{"model": ' * 200_000, "tokenizer.json cannot be read"),
    ],
)
def test_a_tokenizer_that_cannot_be_served_is_refused_in_one_sentence(tokenizer: Any, said: str) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        tried(tokenizer())
    assert caught.value.hint and "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("one\n{% for %}", "does not compile: line 2: "),
        ("one\n{{ '%(x)s' % {} }}", "renders none of [0-9]+ usual chats: line 2: KeyError 'x'"),
        ("{{ raise_exception('never') }}", "renders none of [0-9]+ usual chats: line 1: never"),
        ("{# nothing #}", "renders none of [0-9]+ usual chats: its text is empty"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more than 2 s"),
        ("{{ 'a'|center(10**11) }}", "takes more than [0-9]+ MiB"),
    ],
)
def test_a_template_that_cannot_be_served_is_refused_by_its_line(template: str, said: str) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        tried(template=template)
    assert caught.value.hint and "\n" not in str(caught.value)
    if "compile" in said:
        with pytest.raises(BuildError, match=f"tool_use {said}"):
            tried(template="fine", tool_template=template)


def test_pre_tokenizers_do_not_matter_for_what_is_served() -> None:
    tokenizer = llama()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tried(tokenizer)


def test_what_is_tried_is_not_the_process_that_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenizers.Tokenizer.from_str", lambda text: pytest.fail("read here"), raising=False)
    tried(json.dumps(json.loads(byte_tokenizer())))
