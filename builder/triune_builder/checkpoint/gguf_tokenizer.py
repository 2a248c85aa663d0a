"""Rebuilds a tokenizer.json from what a GGUF file says of its byte-level BPE or its SentencePiece. Knows no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import BuildError, quoted
from .token_ids import TokenIds, stop_ids

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # tokenizer.ggml.token_type
_MOST_HALVED = 1 << 27  # letters of all halves that tokens have: it takes seconds to look them up
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's mark for one
_HINT = "build from the model's Hugging Face folder or hub id, which have a tokenizer.json"
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


@dataclass(frozen=True, kw_only=True)
class Split:
    """How text is cut into words before merging, and what goes with that vocabulary."""

    patterns: tuple[str, ...] = ()  # each match becomes a word of its own, one pattern after the other
    single_digits: bool = False
    gpt2_words: bool = False  # ByteLevel's own pattern, last
    nfc: bool = False  # text is normalized first
    ignore_merges: bool = False  # a word that is in the vocabulary is one token, merges or not
    adds_bos: bool = False  # where the file does not say


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

SPLITS: dict[str, Split] = {
    "gpt-2": Split(gpt2_words=True),
    "smollm": Split(single_digits=True, gpt2_words=True),
    "llama-bpe": Split(patterns=(_LLAMA3,), ignore_merges=True, adds_bos=True),
    "qwen2": Split(patterns=(_QWEN2,), nfc=True),
    "deepseek-r1-qwen": Split(patterns=(_QWEN2,), nfc=True),
    "deepseek-v3": Split(patterns=_DEEPSEEK3),
}


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A rebuilt tokenizer and what the file says around it."""

    size: int
    tokenizer_json: str
    chat_template: str | None
    special_tokens: dict[str, str] = field(default_factory=dict)
    token_ids: dict[str, int] = field(default_factory=dict)  # bos_token_id, eos_token_id, ...
    stop_token_ids: tuple[int, ...] = ()


def read_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """The tokenizer of a GGUF file.

    Raises:
        BuildError: it is neither a byte-level BPE nor a SentencePiece, it cuts text in an unknown way, or its lists disagree.
    """
    own = {k.removeprefix("tokenizer.ggml."): v for k, v in metadata.items() if k.startswith("tokenizer.ggml.")}
    pieces = own.get("model") == "llama"
    split = Split(adds_bos=True) if pieces and own.get("tokens") else _split(own)
    tokens: list[str] = own["tokens"]
    types: list[int] = own.get("token_type") or [1] * len(tokens)
    _check_types(own, metadata.get("tokenizer.chat_template"))
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens) or len(types) != len(tokens):
        raise BuildError(
            f"the GGUF tokenizer has {len(tokens)} tokens, {len(vocab)} of them different, and {len(types)} token types", _HINT
        )
    reader = TokenIds(file="the GGUF tokenizer", values=own, count=len(tokens), hint=_HINT)
    found = {name: reader.one(f"{theirs}_token_id") for name, theirs in _SPECIAL.items()}
    ids = {name: i for name, i in found.items() if i is not None}
    ends = [i for name in ("eos", "eot", "eom") if (i := reader.one(f"{name}_token_id")) is not None]

    tokenizer = _sentencepiece(vocab, types, own) if pieces else _bpe(vocab, own.get("merges") or [], split)
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    user_defined = [t for t, kind in zip(tokens, types, strict=True) if kind == _USER_DEFINED]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in user_defined])
    tokenizer.post_processor = _post_processor(own, split, {name: (tokens[i], i) for name, i in ids.items()})
    return Vocabulary(
        size=len(tokens),
        tokenizer_json=tokenizer.to_str(),
        chat_template=metadata.get("tokenizer.chat_template"),
        special_tokens={name: tokens[i] for name, i in ids.items()},
        token_ids={f"{name}_id": i for name, i in ids.items() if name != "unk_token"},  # as config.json has them
        stop_token_ids=stop_ids(ends, {t: vocab[t] for t in control}),
    )


def _check_types(own: Mapping[str, Any], template: Any) -> None:
    """That the lists are of what they should be, and flags are flags."""
    for key, kind in (("tokens", str), ("token_type", int), ("merges", str)):
        values = own.get(key) or []
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise BuildError(f"the GGUF tokenizer's {key} is not a list of {kind.__name__}", _HINT)
    for key in ("add_bos_token", "add_eos_token"):
        if not isinstance(own.get(key, False), bool):
            raise BuildError(f"the GGUF tokenizer's {key} is {quoted(own[key])}, not true or false", _HINT)
    if not isinstance(template, str | None):
        raise BuildError(f"the GGUF file's tokenizer.chat_template is {quoted(template)}, not a text", _HINT)


def _split(own: Mapping[str, Any]) -> Split:
    if own.get("model") != "gpt2" or not own.get("tokens"):
        known = "'gpt2' (byte-level BPE), 'llama' (SentencePiece)"
        raise BuildError(f"GGUF tokenizer model {quoted(own.get('model'))} is not read; known: {known}", _HINT)
    name = own.get("pre", "default")
    if not isinstance(name, str) or name not in SPLITS:
        raise BuildError(
            f"GGUF pre-tokenizer {quoted(name)} is not known, and guessing how it cuts text would give wrong tokens; "
            f"known: {', '.join(SPLITS)}",
            f"{_HINT}; or add a row to SPLITS in checkpoint/gguf_tokenizer.py",
        )
    return SPLITS[name]


def _bpe(vocab: dict[str, int], merges: list[str], split: Split) -> Tokenizer:
    halves = [merge.partition(" ") for merge in merges]
    pairs = [(left, right) for left, _, right in halves]
    wrong = [m for m, (left, right) in zip(merges, pairs, strict=True) if not right or left + right not in vocab]
    if wrong:
        raise BuildError(
            f"{len(wrong)} merges of the GGUF tokenizer make no token, the first of them {quoted(wrong[0])}", _HINT
        )
    try:
        tokenizer = Tokenizer(models.BPE(vocab, pairs, ignore_merges=split.ignore_merges))
    except Exception as error:  # the library raises nothing narrower
        raise BuildError(f"the GGUF tokenizer's merges and tokens do not fit: {error}", _HINT) from error
    steps: list[pre_tokenizers.PreTokenizer] = []
    if split.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps += [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split.gpt2_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    if split.nfc:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _sentencepiece(vocab: dict[str, int], types: list[int], own: Mapping[str, Any]) -> Tokenizer:
    """SentencePiece's BPE: of two neighbours the ones whose token has the highest score are merged first."""
    scores: list[float] = own.get("scores") or []
    if not isinstance(scores, list) or not all(isinstance(score, int | float) for score in scores):
        raise BuildError("the GGUF tokenizer's scores are not a list of numbers", _HINT)
    if sum(len(token) ** 2 for token in vocab) > _MOST_HALVED:
        raise BuildError(
            f"the GGUF tokenizer has tokens of up to {max(map(len, vocab)):,} letters; words are far shorter", _HINT
        )
    if len(scores) != len(types):
        raise BuildError(f"the GGUF tokenizer has {len(types)} tokens and {len(scores)} scores", _HINT)
    made = [
        (-scores[i], i, token[:at], token[at:])
        for token, i in vocab.items()
        if types[i] == _NORMAL
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    made.sort(key=lambda merge: (merge[0], merge[1], vocab[merge[2]], vocab[merge[3]]))
    unknown = own.get("unknown_token_id")
    tokenizer = Tokenizer(
        models.BPE(
            vocab, [(left, right) for _, _, left, right in made], fuse_unk=True, byte_fallback="<0x00>" in vocab,
            unk_token=None if unknown is None else list(vocab)[unknown],
        )
    )  # fmt: skip
    spaces = [normalizers.Prepend(_SPACE)] if own.get("add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", _SPACE)])
    whole = [decoders.Strip(" ", 1, 0)] if spaces else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *whole])
    return tokenizer


def _post_processor(own: Mapping[str, Any], split: Split, special: Mapping[str, tuple[str, int]]) -> processors.PostProcessor:
    """Adds the tokens that begin and end a text, where the model was trained with them."""
    plain = processors.ByteLevel(trim_offsets=False)  # changes no ids
    begin = [special["bos_token"]] if own.get("add_bos_token", split.adds_bos) and "bos_token" in special else []
    end = [special["eos_token"]] if own.get("add_eos_token", False) and "eos_token" in special else []
    if not begin and not end:
        return plain

    def around(text: str, kind: int) -> list[str]:
        return [*(f"{t}:{kind}" for t, _ in begin), f"${text}:{kind}", *(f"{t}:{kind}" for t, _ in end)]

    template = processors.TemplateProcessing(
        single=around("A", 0), pair=[*around("A", 0), *around("B", 1)], special_tokens=list(dict.fromkeys(begin + end))
    )
    return processors.Sequence([plain, template])
