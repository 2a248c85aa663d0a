"""The text of the pretended model: the same prompt has the same answer, every token differs from its neighbours. Pure."""

from __future__ import annotations

import zlib

_SYLLABLES = ("ka", "lo", "mi", "né", "pu", "ra", "sö", "ti", "vê", "zu", "日", "本")


def answer_tokens(prompt: str, count: int) -> list[str]:
    """`count` tokens of an answer to `prompt`."""
    seed = zlib.crc32(prompt.encode())
    return [f" {_SYLLABLES[(seed >> n % 16) % len(_SYLLABLES)]}{(seed + n) % 1000}" for n in range(count)]


def count_tokens(prompt: str) -> int:
    """Tokens of a prompt: its words."""
    return max(1, len(prompt.split()))
