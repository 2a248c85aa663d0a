"""Log probabilities in OpenAI's two shapes. The server gives a token's bytes with its number; knows no tokenizer.

They are of every token generated, thinking and the token that ended the answer included.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

_LEAST = -9999.0  # in place of minus infinity, which JSON cannot carry; OpenAI's number


def chat_logprobs(entries: Iterable[Mapping[str, Any]], top: int) -> dict[str, Any]:
    """The `logprobs` of a chat choice: entries with the `top` best tokens of their position."""
    return {"content": [_chat_entry(entry, top) for entry in entries], "refusal": None}


def _chat_entry(entry: Mapping[str, Any], top: int) -> dict[str, Any]:
    chosen = _chat_token(entry["token_id"], entry["logprob"], entry.get("bytes"))
    return chosen | {"top_logprobs": [_chat_token(*best) for best in _best(entry)[:top]]}


def _chat_token(token_id: int, logprob: float, raw: list[int] | None) -> dict[str, Any]:
    return {"token": _text(token_id, raw), "logprob": max(logprob, _LEAST), "bytes": raw}


def _best(entry: Mapping[str, Any]) -> list[tuple[int, float, list[int] | None]]:
    top = entry.get("top", ())
    raws = entry.get("top_bytes") or [None] * len(top)
    return [(token_id, logprob, raw) for (token_id, logprob), raw in zip(top, raws, strict=True)]


def _text(token_id: int, raw: list[int] | None) -> str:
    """A token's text; one that is part of a character shows as U+FFFD, one whose bytes are unknown by its number."""
    return f"token_id:{token_id}" if raw is None else bytes(raw).decode("utf-8", "replace")


class TextOffsets:
    """The `logprobs` of a completion's pieces: knows at which character of the text each token begins."""

    def __init__(self, begin: int) -> None:
        """
        Args:
            begin: characters before the answer: those of an echoed prompt.
        """
        self._at = begin
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def shape(self, entries: Iterable[Mapping[str, Any]], top: int) -> dict[str, Any]:
        """The `logprobs` of the next piece, with the `top` best tokens of each position and the chosen one."""
        shaped: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            token_id, logprob, raw = entry["token_id"], max(entry["logprob"], _LEAST), entry.get("bytes")
            text = _text(token_id, raw)
            shaped["tokens"].append(text)
            shaped["token_logprobs"].append(logprob)
            shaped["text_offset"].append(self._at)
            best = {_text(one, its): max(value, _LEAST) for one, value, its in _best(entry)[:top]}
            shaped["top_logprobs"].append({text: logprob} | best if top else None)
            self._at += len(self._decoder.decode(bytes(raw or ())))
        return shaped
