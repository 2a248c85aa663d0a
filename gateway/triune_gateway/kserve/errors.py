"""What Triton's status 400 means: 24.10 has it for every error of a model, whose text begins with the status that was meant."""

from __future__ import annotations

import json
import re

LONGEST = 65_536  # bytes of an answer that is looked at
# Before it Triton may say which model failed.
_UNAVAILABLE = re.compile(r"(?:^|[ ,:])UNAVAILABLE(?: \[[^\]]*\])?: ")


def unavailable(body: bytes) -> str | None:
    """The text of an error that another try may not have; None for any other answer."""
    try:
        message = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        return None
    return message if isinstance(message, str) and _UNAVAILABLE.search(message[:300]) else None
