"""Token id -> bytes. Knows byte-level BPE vocabularies, whose tokens' bytes simply concatenate."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from tokenizers import Tokenizer

from ..errors import ManifestError


class TokenBytes(Sequence[bytes]):
    """The bytes of every token; special tokens have none."""

    def __init__(self, table: Iterable[bytes]) -> None:
        self._table = tuple(table)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, token_id: int) -> bytes:  # type: ignore[override]  # ids only, no slices
        return self._table[token_id]

    def join(self, token_ids: Iterable[int]) -> bytes:
        """The bytes of several tokens, end to end."""
        return b"".join(self._table[t] for t in token_ids)


def token_bytes(tokenizer: Tokenizer, vocab_size: int, shown: Collection[str] = ()) -> TokenBytes:
    """The table of `tokenizer`, padded with empty bytes up to `vocab_size`.

    Args:
        shown: special tokens that have text all the same, such as the markers of thinking.

    Raises:
        ManifestError: the tokenizer is not byte-level, so its tokens have no bytes of their own.
    """
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    kinds = {d.get("type") for d in (decoder, *decoder.get("decoders", ()))}
    if "ByteLevel" not in kinds:
        raise ManifestError(
            f"the tokenizer's decoder is {decoder.get('type')!r}, not ByteLevel", "use a model with a byte-level BPE tokenizer"
        )
    table = [b""] * max(vocab_size, tokenizer.get_vocab_size(with_added_tokens=True))
    letters = _letter_bytes()
    for token, token_id in tokenizer.get_vocab(with_added_tokens=False).items():
        if all(c in letters for c in token):
            table[token_id] = bytes(letters[c] for c in token)
        else:
            table[token_id] = token.encode()
    for token_id, added in tokenizer.get_added_tokens_decoder().items():
        table[token_id] = b"" if added.special and added.content not in shown else added.content.encode()
    return TokenBytes(table)


def _letter_bytes() -> dict[str, int]:
    """The printable letter that stands for each byte in byte-level BPE (Radford et al. 2019), inverted."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
