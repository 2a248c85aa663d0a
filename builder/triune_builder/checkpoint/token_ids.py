"""Ids of tokens as a checkpoint's files name them: checked to be ids of tokens that the model has. Opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BuildError, quoted

# Special tokens that chat models end their turn or text with; some publishers name only one of them in their config.
END_TOKENS = frozenset(
    "<|im_end|> <|eot_id|> <|eom_id|> <|endoftext|> <|end_of_text|> <|EOT|> <end_of_turn> <｜end▁of▁sentence｜>".split()
)
SILENT = "the checkpoint names no token that ends an answer: answers end at max_tokens or at a stop string"


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Reads the ids that one file names."""

    file: str  # as errors call it
    values: Mapping[str, Any]
    count: int | None  # tokens that the model has embeddings for; None: not known
    hint: str

    def one(self, key: str) -> int | None:
        """The id under `key`; None where nothing is said.

        Raises:
            BuildError: it is no id, or of no token of the model.
        """
        value = self.values.get(key)
        return None if value is None else self._checked(key, value, value)

    def several(self, key: str) -> tuple[int, ...]:
        """The ids under `key`, an id or a list of ids; none where nothing is said.

        Raises:
            BuildError: as `one`.
        """
        value = self.values.get(key)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        return tuple(self._checked(key, each, value) for each in listed)

    def _checked(self, key: str, value: Any, whole: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (self.count or 1 << 31):
            return value
        inside = f" in {quoted(whole)}" if whole is not value else ""
        wanted = f"from 0 to {self.count - 1}" if self.count else "of a token"
        raise BuildError(f"{self.file} has {key} = {quoted(value)}{inside}; a whole number {wanted} is expected", self.hint)


def of_json(file: str, values: Mapping[str, Any], count: int | None) -> TokenIds:
    """The ids in a JSON file of the checkpoint."""
    return TokenIds(file=file, values=values, count=count,
                    hint=f"correct it in {file}, or remove the key: what says nothing is not used")  # fmt: skip


def check_padding(ids: TokenIds) -> None:
    """A model that pads nothing may say so with -1, as older ones do; nothing here reads the id.

    Raises:
        BuildError: it is something else, and no id of the model's.
    """
    if ids.values.get("pad_token_id") != -1:
        ids.one("pad_token_id")


def stop_ids(named: Iterable[int], special: Mapping[str, int], count: int | None = None) -> tuple[int, ...]:
    """Ids that end an answer, in order and once each.

    Args:
        named: what configs name.
        special: text -> id of the tokenizer's special tokens; those known to end a turn are added.
        count: tokens that the model has; special tokens beyond them are left out.
    """
    ends = (i for text, i in special.items() if text in END_TOKENS and (count is None or i < count))
    return tuple(dict.fromkeys((*named, *ends)))
