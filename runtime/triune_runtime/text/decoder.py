"""What a tokenizer's decoder does to tokens, as far as it is a text for each token put end to end.

The decoders of published models are chains of steps. Those that change each token by itself come first; then the tokens become
one text, in one of three ways: bytes behind letters (ByteLevel), `<0x0A>` for a byte (ByteFallback), or letters alone, with a
mark for the space (Metaspace, or a Replace). What may follow takes something off the beginning of the whole text (Strip).
Every other chain makes text that changes when more tokens come, in ways that cannot be streamed: it is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders

from ..errors import ManifestError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_HINT = (
    "use a model whose tokenizer.json decodes with ByteLevel, or as SentencePiece does: Metaspace, or Replace, ByteFallback, "
    "Fuse and Strip at the beginning"
)
_NAMED = {"Replace", "Strip", "ByteLevel", "ByteFallback", "Fuse", "Metaspace"}


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """The steps of a decoder that is served."""

    each: decoders.Decoder | None  # changes the text of each token by itself
    byte_level: bool  # letters stand for bytes
    fallback: bool  # <0x0A> stands for a byte
    space: str | None  # Metaspace's mark: a space, and nothing in a text's first token
    first_spaces: bool  # ... a space there too
    strips: tuple[tuple[str, int], ...]  # off the beginning of the whole text: a letter and how often at most

    def letters(self, token: str) -> str:
        """The text of a token, not at the beginning of a text; of one that stands for a byte, its name."""
        changed = token if self.each is None else str(self.each.decode([token]))
        return changed if self.space is None else changed.replace(self.space, " ")

    def first_letters(self, token: str) -> str:
        """The same, of a text's first token, before anything is stripped."""
        if self.space is None or self.first_spaces:
            return self.letters(token)
        changed = token if self.each is None else str(self.each.decode([token]))
        return changed.replace(self.space, "")

    def byte(self, letters: str) -> int | None:
        """The byte that a token with this text stands for, if it stands for one."""
        found = _BYTE.match(letters) if self.fallback else None
        return int(found[1], 16) if found else None


def read_decoder(tokenizer: Tokenizer) -> Spelling:
    """The decoder of `tokenizer`.

    Raises:
        ManifestError: it is none that is served; names its steps and the one that is in the way.
    """
    if tokenizer.decoder is None:
        raise ManifestError("the tokenizer has no decoder, so its tokens have no text that can be put together", _HINT)
    raw = json.loads(tokenizer.decoder.__getstate__())
    steps = list(_steps(raw))
    names = ", ".join(str(step.get("type")) for step in steps) or "none"

    def refuse(why: str) -> ManifestError:
        return ManifestError(f"the tokenizer's decoder ({names}) cannot be served exactly: {why}", _HINT)

    each: list[dict[str, Any]] = []
    strips: list[tuple[str, int]] = []
    byte_level = fallback = first_spaces = joined = False
    space: str | None = None
    for step in steps:
        kind = step.get("type")
        if kind not in _NAMED:
            raise refuse(f"{kind} makes text that depends on the tokens around it")
        if kind == "Fuse":
            joined = True
        elif kind == "Strip":
            if step["stop"]:
                raise refuse("Strip takes letters off the end of a text, which is not known while it is streamed")
            if joined:
                strips.append((step["content"], step["start"]))
            elif fallback or space is not None:
                raise refuse(f"Strip comes after {'ByteFallback' if fallback else 'Metaspace'} and without Fuse")
            else:
                each.append(step)
        elif joined:
            raise refuse(f"{kind} comes after the tokens are one text, and may change what spans several")
        elif kind == "ByteFallback":
            fallback = True
        elif fallback or space is not None:
            raise refuse(f"{kind} comes after {'ByteFallback' if fallback else 'Metaspace'}")
        elif kind == "ByteLevel":
            byte_level = joined = True
        elif kind == "Metaspace":
            space, first_spaces = step["replacement"], step["prepend_scheme"] == "never"
        else:
            each.append(step)
    return Spelling(
        each=_decoder(each), byte_level=byte_level, fallback=fallback, space=space, first_spaces=first_spaces,
        strips=tuple(strip for strip in strips if strip[1]),
    )  # fmt: skip


def _steps(raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if raw.get("type") != "Sequence":
        yield raw
        return
    for inner in raw["decoders"]:
        yield from _steps(inner)


def _decoder(steps: list[dict[str, Any]]) -> decoders.Decoder | None:
    if not steps:
        return None
    made = decoders.Sequence([])
    made.__setstate__(json.dumps({"type": "Sequence", "decoders": steps}).encode())
    return made
