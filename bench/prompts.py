"""The prompts of the load: distinct texts of about 150 tokens, the same on every run."""

from __future__ import annotations

_WHO = ("merchant", "soldier", "teacher", "sailor", "farmer", "painter", "doctor", "miller", "tailor", "baker", "printer")
_WHAT = ("bread", "maps", "cloth", "salt", "letters", "lamps", "tools", "wine", "horses", "paper", "silver", "timber", "glass")


def prompt(number: int) -> str:
    """Prompt `number`; no two share their beginning, so no cache of prefixes helps."""
    sentences = [
        f"The {_WHO[(number + i) % len(_WHO)]} of house {number * 31 + i * 7} brought"
        f" {_WHAT[(number * 5 + i) % len(_WHAT)]} to the market by the river."
        for i in range(8)
    ]
    return f"Chronicle {number}. " + " ".join(sentences)
