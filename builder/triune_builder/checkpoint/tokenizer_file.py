"""Which tokens a tokenizer.json has, and those of them that the model has embeddings for. Cuts no text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BuildError, quoted
from .files import parse_object

_AGAIN = "fetch the file again"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens of a tokenizer.json that the model has."""

    text: str  # of the tokenizer.json, without the others
    special: dict[str, int]  # text -> id of added tokens that are special
    ids: dict[str, int]  # text -> id, the added ones first; of those without embeddings too
    notes: tuple[str, ...] = ()  # what was left out, in words


def read_tokens(path: Path, text: str, count: int | None) -> Tokens:
    """The tokens of `text`, read from `path`.

    An added token without an embedding cannot be run. It is left out, and its text is cut as any other: publishers who added
    one for padding have such checkpoints. Any other token without an embedding means that the tokenizer is another model's.

    Args:
        count: rows of the embedding table; None: not known.

    Raises:
        BuildError: it is no tokenizer, or one of another model.
    """
    raw = parse_object(path, text)
    try:
        added = {token["content"]: token for token in raw.get("added_tokens") or []}
        special = {content: _id(token["id"]) for content, token in added.items() if token["special"]}
        model = raw.get("model") or {}
        listed = model.get("vocab") or {}
        if not isinstance(listed, dict):  # Unigram: [text, score] in the order of their ids
            listed = {piece[0]: number for number, piece in enumerate(listed)}
        vocabulary = {content: _id(number) for content, number in listed.items()}
        ids = vocabulary | {content: _id(token["id"]) for content, token in added.items()}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BuildError(f"{path} is not a readable tokenizer: {error!r}", _AGAIN) from error
    beyond = {content: number for content, number in ids.items() if count is not None and number >= count}
    inserted = sorted(number for number in _inserted(raw.get("post_processor")) if count is not None and number >= count)
    if inserted and not beyond:
        raise BuildError(
            f"{path} puts token {inserted[0]} into every text by its post_processor; the embedding table has {count} rows",
            _AGAIN,
        )
    if not beyond:
        return Tokens(text=text, special=special, ids=ids)
    own = {content: number for content, number in beyond.items() if content not in added}
    if own or inserted or not isinstance(model.get("vocab") or {}, dict):
        what = _some(own or beyond) + (f"; its post_processor puts token {inserted[0]} into every text" if inserted else "")
        raise BuildError(
            f"{path} has {len(own or beyond)} tokens without an embedding: {what}; the embedding table has {count} rows",
            "the tokenizer and the weights are of different models or versions: fetch both of the same",
        )
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] not in beyond]
    for content in beyond.keys() & vocabulary.keys():
        del model["vocab"][content]
    note = (
        f"{path.name} has {len(beyond)} added tokens without an embedding ({_some(beyond)}; the embedding table has {count} "
        "rows): they are left out, and their text is cut as any other"
    )
    kept = {content: number for content, number in special.items() if content not in beyond}
    return Tokens(text=json.dumps(raw, ensure_ascii=False), special=kept, ids=ids, notes=(note,))


def _id(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise ValueError(f"{quoted(value)} is no token id")
    return value


def _inserted(part: Any) -> Iterator[int]:
    """Ids of the tokens that a post-processor may put into texts."""
    pending = [part]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from (number for number in _list(value.get("ids")) if isinstance(number, int))
            pending += value.values()
        elif isinstance(value, list):
            if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):  # as BERT's and RoBERTa's have it
                yield value[1]
            pending += value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _some(tokens: dict[str, int]) -> str:
    first, last = min(tokens.values()), max(tokens.values())
    return f"ids {first} to {last}, such as {quoted(next(iter(tokens)))}"
