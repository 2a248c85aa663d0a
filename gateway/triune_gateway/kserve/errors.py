"""What Triton's status 400 means: 24.10 has it for every error of a model, whose text begins with the status that was meant."""

from __future__ import annotations

import json
import re

LONGEST = 65_536  # bytes of an answer that is looked at
# Before it Triton may say which model failed.
_UNAVAILABLE = re.compile(r"(?:^|[ ,:])UNAVAILABLE(?: \[[^\]]*\])?: ")
_WORDS = re.compile(r"(?:^|[ ,:])UNAVAILABLE \[(\w+)(?: ([^\]]+))?\]: ")
FULL = "UNAVAILABLE [overloaded]: as many requests as the server takes are under way or wait; hint: send it again later"


def unavailable(body: bytes) -> str | None:
    """The text of an error that another try may not have; None for any other answer."""
    try:
        message = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return None
    return message if isinstance(message, str) and _UNAVAILABLE.search(message[:300]) else None


def words_of(message: str) -> tuple[str | None, str | None]:
    """The code of such an error, and what there is no room for if that is not for anything."""
    found = _WORDS.search(message[:300])
    return (found[1], found[2]) if found else (None, None)
