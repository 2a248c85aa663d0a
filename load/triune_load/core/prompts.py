"""Texts to ask with: made up, of about so many tokens, or read from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LoadError

# Short and frequent: one token each in the vocabularies of today's models.
_WORDS = """
the of and to in is was for that on with as are at from his by be this or an it not had one all new more their said
would about when time who some could other them these two may only first over such made any after man most also people
much my before must many through back years where way well down should because long each just state those how too little
good world make very year still see own work men day get here between both life being under three never know same last
another while us off might great go come since against right came take used himself few house use place during high
without again home around small however found water part school every think number war four light side hand night head
white city young course enough paper end door
""".split()  # fmt: skip


def made_up(rng: random.Random, tokens: int) -> str:
    """A text of about `tokens` tokens: frequent English words, in sentences of no meaning."""
    words = rng.choices(_WORDS, k=max(1, tokens))
    for start in range(0, len(words), 12):
        words[start] = words[start].capitalize()
    return " ".join(words)


@dataclass(frozen=True)
class Prompt:
    """A line of a file of prompts."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int | None = None


def parse_prompts(text: str) -> list[Prompt]:
    """The prompts of a file: a JSON object or a text in each line.

    An object has `prompt`, `text_input` or `text`, or `messages`; and may have `max_tokens`.

    Raises:
        LoadError: there is none, or an object has no prompt.
    """
    found = [_prompt(line) for line in text.splitlines() if line.strip()]
    if not found:
        raise LoadError("the file of prompts is empty; expected a prompt in each line")
    return found


def _prompt(line: str) -> Prompt:
    if not line.lstrip().startswith("{"):
        return Prompt(({"role": "user", "content": line},))
    try:
        row: Mapping[str, Any] = json.loads(line)
    except ValueError as error:
        raise LoadError(f"a line of the file of prompts is {line[:80]!r}; expected JSON ({error})") from None
    tokens = row.get("max_tokens")
    if isinstance(messages := row.get("messages"), list) and messages:
        return Prompt(tuple({"role": str(m["role"]), "content": str(m["content"])} for m in messages), tokens)
    for name in ("prompt", "text_input", "text"):
        if isinstance(content := row.get(name), str):
            return Prompt(({"role": "user", "content": content},), tokens)
    raise LoadError(f"a line of the file of prompts has {', '.join(row)}; expected prompt, text_input, text or messages")
