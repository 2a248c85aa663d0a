"""Streamed text is what the library decodes the whole answer to. Run: pytest tests/runtime/test_exact_text.py"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from fakes.spellings import SENTENCES, every, llama, unigram
from triune_runtime.errors import ManifestError
from triune_runtime.text.cut import Cut, merge
from triune_runtime.text.cutter import TextCutter, render
from triune_runtime.text.vocabulary import TokenBytes, token_bytes

TABLES = {name: token_bytes(tokenizer, 400) for name, tokenizer in every().items()}
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
STOPS = [" ", "th", "the", "\n", "é", "中", " a", "世界", "b c", "{", "﷐", "fi1", "t"]


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Answers: any tokens, with rows of bytes and beginnings of spaces more often than chance has them."""
    known = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    texts = st.sampled_from([*SENTENCES, " the", "  a", "中é😀", "\n"]).map(lambda t: tokenizer.encode(t).ids)
    begun = st.tuples(texts, st.integers(0, 9)).map(lambda part: part[0][: part[1]])
    parts = st.lists(st.one_of(st.lists(st.sampled_from(known), max_size=6), begun), max_size=4)
    return parts.map(lambda found: [token for part in found for token in part])


named = st.sampled_from(sorted(TABLES))
answers = named.flatmap(lambda name: st.tuples(st.just(name), ids_of(every()[name])))


def decoded(name: str, token_ids: list[int]) -> str:
    return str(every()[name].decode(token_ids))


def cuts_of(table: TokenBytes, token_ids: list[int], stop: list[str], **options: Any) -> tuple[list[Cut], int]:
    """The pieces of an answer and how many tokens it took."""
    cutter, cuts = TextCutter(table, stop, **options), []
    for count, token in enumerate(token_ids, start=1):
        if (cut := cutter.push(token)) is not None:
            cuts.append(cut)
            if cut.stop_reason:
                return cuts, count
    last = cutter.finish()
    return ([*cuts, last] if last else cuts), len(token_ids)


def text_of(table: TokenBytes, cuts: list[Cut]) -> str:
    return "".join(render(c.token_ids, c.byte_start, c.byte_stop, table) for c in cuts)


@given(answers)
def test_pieces_put_together_are_what_the_library_decodes_the_whole_answer_to(answer: tuple[str, list[int]]) -> None:
    name, token_ids = answer
    cuts, _ = cuts_of(TABLES[name], token_ids, [])
    assert text_of(TABLES[name], cuts) == decoded(name, token_ids)


@given(answers, st.lists(st.booleans(), min_size=60, max_size=60))
def test_pieces_joined_in_any_grouping_have_the_same_text(answer: tuple[str, list[int]], join: list[bool]) -> None:
    name, token_ids = answer
    merged: list[Cut] = []
    for cut, together in zip(cuts_of(TABLES[name], token_ids, [])[0], join, strict=False):
        merged[-1:] = [merge(merged[-1], cut)] if together and merged else [*merged[-1:], cut]
    assert len(token_ids) > 60 or text_of(TABLES[name], merged) == decoded(name, token_ids)


@given(answers, st.integers(1, 5))
def test_tokens_that_come_several_at_once_give_the_same_text(answer: tuple[str, list[int]], size: int) -> None:
    name, token_ids = answer
    cutter = TextCutter(TABLES[name])
    cuts = [cutter.push(*token_ids[at : at + size]) for at in range(0, len(token_ids), size)]
    assert text_of(TABLES[name], [c for c in [*cuts, cutter.finish()] if c]) == decoded(name, token_ids)


@given(answers, st.lists(st.sampled_from(STOPS), max_size=2, unique=True), st.integers(0, 4))
def test_a_stop_string_ends_the_answer_with_the_first_token_after_which_the_decoded_text_has_it(
    answer: tuple[str, list[int]], stop: list[str], min_tokens: int
) -> None:
    name, token_ids = answer
    cuts, count = cuts_of(TABLES[name], token_ids, stop, min_tokens=min_tokens)
    text, end = text_of(TABLES[name], cuts), len(token_ids)
    begun = dict.fromkeys(stop, 0)  # where the search for each begins: behind what was text before min_tokens
    for taken in range(1, len(token_ids) + 1):
        whole = decoded(name, token_ids[:taken])
        found = [at for s in stop if (at := whole.find(s, begun[s])) >= 0] if taken >= min_tokens else []
        if found:
            end = taken
            break
        for s in stop:
            begun[s] = max(len(whole.rstrip(UNKNOWN)) - len(s) + 1, begun[s])
    assert count == end
    if cuts and cuts[-1].stop_reason:
        assert decoded(name, token_ids[:count]).startswith(text + cuts[-1].stop_reason)
    else:
        assert text == decoded(name, token_ids)


@given(answers)
def test_an_answer_behind_its_prompt_is_the_text_of_both(answer: tuple[str, list[int]]) -> None:
    name, token_ids = answer
    table, prompt = TABLES[name], token_ids[: len(token_ids) // 2]
    cuts, _ = cuts_of(table, token_ids[len(prompt) :], [], continues=True)
    cut = cuts[0] if cuts else Cut((), 0, 0)
    for following in cuts[1:]:
        cut = merge(cut, following)
    tokens = (*prompt, *cut.token_ids)
    whole = render(tokens, table.dropped(tokens), len(table.join(prompt)) + cut.byte_stop, table)
    assert whole == decoded(name, token_ids)


@given(answers)
def test_only_what_is_undecided_is_held_back(answer: tuple[str, list[int]]) -> None:
    name, token_ids = answer
    table, cutter = TABLES[name], TextCutter(TABLES[name])
    out = ""
    for taken, token in enumerate(token_ids, start=1):
        cut = cutter.push(token)
        out += text_of(table, [cut] if cut else [])
        row = next((n for n, t in enumerate(reversed(token_ids[:taken])) if table[t] and t not in table.single), taken)
        held = decoded(name, token_ids[: taken - row]).rstrip(UNKNOWN)
        assert out.startswith(held)


def test_a_new_line_of_a_byte_token_comes_with_the_token_behind_it_and_ends_an_answer_at_once() -> None:
    tokenizer, table = llama(), TABLES["llama"]
    the, line = (tokenizer.token_to_id(token) for token in ("▁the", "<0x0A>"))
    cutter = TextCutter(table)
    assert [cutter.push(t) for t in (the, line, the)] == [Cut((the,), 1, 4), None, Cut((line, the), 0, 5)]
    stopped = TextCutter(table, ["\n"])
    stopped.push(the)
    assert stopped.push(line) == Cut((), 0, 0, "\n")


def test_bytes_cut_off_inside_a_character_are_as_many_unknown_letters_as_bytes() -> None:
    tokens = [llama().token_to_id(f"<0x{byte:02X}>") for byte in "中".encode() + b"\xe4"]
    cuts, _ = cuts_of(TABLES["llama"], tokens, [])
    assert text_of(TABLES["llama"], cuts) == UNKNOWN * 4 == llama().decode(tokens)


def test_a_token_at_the_beginning_has_the_bytes_that_it_adds_to_the_text() -> None:
    tokenizer, table = unigram("always"), TABLES["unigram, always"]
    the = tokenizer.token_to_id("▁the")
    assert (table[the], table.at_beginning(the)) == (b" the", b"the")


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        (None, "has no decoder"),
        (decoders.WordPiece(), "WordPiece makes text that depends on the tokens around it"),
        (decoders.CTC(), "CTC makes text"),
        (decoders.BPEDecoder(), "BPEDecoder makes text"),
        (decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", "c")]), "Replace comes after the tokens are one text"),
        (decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 0, 1)]), "off the end of a text"),
        (decoders.Sequence([decoders.ByteFallback(), decoders.Strip(" ", 1, 0)]), "without Fuse"),
        (decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]), "Metaspace comes after ByteFallback"),
        (decoders.Sequence([decoders.ByteLevel(), decoders.ByteFallback()]), "ByteFallback comes after the tokens are one"),
    ],
)
def test_a_decoder_whose_text_cannot_be_streamed_is_refused_by_name(decoder: decoders.Decoder | None, said: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, "a"))
    if decoder is not None:
        tokenizer.decoder = decoder
    with pytest.raises(ManifestError, match=said):
        token_bytes(tokenizer, 1)
