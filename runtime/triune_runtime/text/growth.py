"""How much longer a tokenizer's normalizer may make a text: it comes with the model, unread, and runs where nothing ends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from ..errors import ManifestError

MOST_GROWTH = 256  # times; those that are published stay below 50
_FORMS = 18  # characters of the longest that Unicode's normal forms make of one
_LONGEST_BEGINNING = 256


def check_growth(tokenizer: Tokenizer) -> None:
    """
    Raises:
        ManifestError: it may make a text so much longer that one request could take all memory.
    """
    steps = [] if tokenizer.normalizer is None else list(_steps(json.loads(tokenizer.normalizer.__getstate__())))
    times = 1.0
    for step in steps:
        if step["type"] == "Replace":
            times *= _replaced(step)
        elif step["type"] == "Prepend" and len(step["prepend"]) > _LONGEST_BEGINNING:
            times = float("inf")
    if any(step["type"] not in ("Replace", "Prepend", "Strip") for step in steps):  # twice the same form changes nothing
        times *= _FORMS
    if times > MOST_GROWTH:
        said = f"the tokenizer's normalizer may make {times:,.0f} characters of one; at most {MOST_GROWTH} are served"
        raise ManifestError(said, "take a model with another tokenizer")


def _steps(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    return [step for one in state["normalizers"] for step in _steps(one)]


def _replaced(step: Mapping[str, Any]) -> float:
    """A match of a regex has one character, or is between two."""
    written, literal = len(step["content"]), step["pattern"].get("String")
    return max(1.0, written / len(literal)) if literal else 1.0 + written
