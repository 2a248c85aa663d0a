"""Small tokenizers of every kind of decoder that is served, made with the library itself."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

MARK = "\N{LOWER ONE EIGHTH BLOCK}"
SENTENCES = ["the theme of the thesis is here", "世界 😀 你好", "a  b   c\n\nd\te", "x = [1, 2]; </s> é ①"] * 8
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_WORDS = '\u2581 \u2581\u2581 \u2581the \u2581th e t h \u2581a \u2581b a b c \u2581{ { " : } 中 \u2581中 é , .'.split(" ")


def _decoder(*, strip: bool = True) -> decoders.Decoder:
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


def llama(*, strip: bool = True, metaspace: str | None = None) -> Tokenizer:
    """As Llama 2, TinyLlama and Mistral are published: BPE with bytes to fall back on.

    Args:
        metaspace: the prepend_scheme of a pre-tokenizer in place of the normalizer ("legacy": false).
    """
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *BYTES, *_WORDS])}
    merges = [(MARK, MARK), ("t", "h"), (MARK, "th"), (f"{MARK}th", "e"), (MARK, "a"), (MARK, "b"), (MARK, "{"), (MARK, "中")]
    vocab["th"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme=metaspace, split=False)
    tokenizer.decoder = _decoder(strip=strip)
    return _with_added(tokenizer)


def unigram(scheme: str) -> Tokenizer:
    """As T5 and XLNet are: Unigram, whose mark for the space is gone in a text's first token unless `scheme` is never."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((word, -1.0 - i / 9) for i, word in enumerate(_WORDS))]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(MARK, prepend_scheme=scheme)
    return _with_added(tokenizer)


def byte_level(*after: decoders.Decoder, nfkc: bool = False) -> Tokenizer:
    """As GPT-2 and most of its successors are."""
    tokenizer = Tokenizer(models.BPE())
    if nfkc:
        tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *after]) if after else decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return _with_added(tokenizer)


def _with_added(tokenizer: Tokenizer) -> Tokenizer:
    """With added tokens of every sort: their text is decoded by rules of its own."""
    tokenizer.add_special_tokens([AddedToken("<s>"), AddedToken("</s>"), AddedToken("ＥＮＤ", normalized=True)])
    tokenizer.add_tokens([
        AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False), AddedToken("ﬁ①", normalized=True),
        AddedToken(" left", lstrip=True), AddedToken("right ", rstrip=True), AddedToken("word", single_word=True),
        AddedToken(f"{MARK}marked", normalized=False), AddedToken("é", normalized=False), AddedToken("  ", normalized=False),
        AddedToken("<0x4>", normalized=False), AddedToken("é中", normalized=False),
    ])  # fmt: skip
    return tokenizer


@cache
def every() -> dict[str, Tokenizer]:
    """One of each, by what is special about it."""
    return {
        "llama": llama(),
        "llama, no strip": llama(strip=False),
        "mistral, first": llama(metaspace="first"),
        "llama, always": llama(metaspace="always"),
        "llama, never": llama(strip=False, metaspace="never"),
        "unigram, always": unigram("always"),
        "unigram, first": unigram("first"),
        "unigram, never": unigram("never"),
        "byte level": byte_level(),
        "byte level, nfkc": byte_level(nfkc=True),
        "byte level, strip": byte_level(decoders.Fuse(), decoders.Strip(" ", 2, 0)),
        "byte level, strip a letter": byte_level(decoders.Strip("é", 1, 0), decoders.Strip("t", 3, 0)),
    }
