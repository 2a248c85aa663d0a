"""Log probabilities in OpenAI's two shapes. The server gives a token's bytes with its number; knows no tokenizer.

They are of every token generated, thinking and the token that ended the answer included.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

Entry = Mapping[str, Any]
_LEAST = -9999.0  # in place of minus infinity, which JSON cannot carry; OpenAI's number


def chat_logprobs(entries: Iterable[Entry], top: int, *, as_ids: bool = False) -> dict[str, Any]:
    """The `logprobs` of a chat choice: entries with the `top` best tokens of their position.

    Args:
        as_ids: tokens are shown by their numbers.
    """
    return {"content": [_chat_entry(entry, top, as_ids=as_ids) for entry in entries], "refusal": None}


def _chat_entry(entry: Entry, top: int, *, as_ids: bool) -> dict[str, Any]:
    chosen = _chat_token(entry["token_id"], entry["logprob"], entry.get("bytes"), as_ids=as_ids)
    return chosen | {"top_logprobs": [_chat_token(*best, as_ids=as_ids) for best in _best(entry)[:top]]}


def _chat_token(token_id: int, logprob: float, raw: list[int] | None, *, as_ids: bool) -> dict[str, Any]:
    return {"token": _text(token_id, None if as_ids else raw), "logprob": max(logprob, _LEAST), "bytes": raw}


def prompt_logprobs(entries: Iterable[Entry], top: int) -> list[dict[str, Any] | None]:
    """The prompt's tokens as vLLM gives them: by token id its log probability, rank and text, with the `top` best ones."""
    return [None if "logprob" not in entry else _ranked(entry, top) for entry in entries]


def _ranked(entry: Entry, top: int) -> dict[str, Any]:
    best = enumerate(_best(entry)[:top], 1)
    found = [(entry.get("rank"), (entry["token_id"], entry["logprob"], entry.get("bytes"))), *best]
    return {
        str(token): {"logprob": max(logprob, _LEAST), "rank": rank, "decoded_token": _text(token, raw)}
        for rank, (token, logprob, raw) in found
    }


def prompt_text(entries: Iterable[Entry]) -> str:
    """The text of a prompt's tokens."""
    return bytes(byte for entry in entries for byte in entry.get("bytes") or ()).decode("utf-8", "replace")


def _best(entry: Entry) -> list[tuple[int, float, list[int] | None]]:
    top = entry.get("top", ())
    raws = entry.get("top_bytes") or [None] * len(top)
    return [(token_id, logprob, raw) for (token_id, logprob), raw in zip(top, raws, strict=True)]


def _text(token_id: int, raw: list[int] | None) -> str:
    """A token's text; one that is part of a character shows as U+FFFD, one whose bytes are unknown by its number."""
    return f"token_id:{token_id}" if raw is None else bytes(raw).decode("utf-8", "replace")


class TextOffsets:
    """The `logprobs` of a completion's pieces: knows at which character of the text each token begins."""

    def __init__(self, begin: int, *, as_ids: bool = False) -> None:
        """
        Args:
            begin: characters before the first token: those of an echoed prompt, where its tokens are not shown.
            as_ids: tokens are shown by their numbers.
        """
        self._at, self._as_ids = begin, as_ids
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def go_on_at(self, place: int) -> None:
        """The answer begins here, behind a prompt whose tokens have been shaped."""
        self._at = place
        self._decoder.reset()

    def shape(self, entries: Iterable[Entry], top: int) -> dict[str, Any]:
        """The `logprobs` of the next piece, with the `top` best tokens of each position and the chosen one.

        The first token of a prompt has neither.
        """
        shaped: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for entry in entries:
            raw = entry.get("bytes")
            text = self._name(entry["token_id"], raw)
            logprob = max(entry["logprob"], _LEAST) if "logprob" in entry else None
            best = {self._name(one, its): max(value, _LEAST) for one, value, its in _best(entry)[:top]}
            shaped["tokens"].append(text)
            shaped["token_logprobs"].append(logprob)
            shaped["text_offset"].append(self._at)
            shaped["top_logprobs"].append({text: logprob} | best if top and logprob is not None else None)
            self._at += len(self._decoder.decode(bytes(raw or ())))
        return shaped

    def _name(self, token_id: int, raw: list[int] | None) -> str:
        return _text(token_id, None if self._as_ids else raw)
