"""What clients are told of the words of the grammar library."""

from __future__ import annotations

import logging
import re

from ..errors import RequestError

LOG = logging.getLogger(__name__)
FAILED = "the grammar library failed"


def refusal(kind: str, why: str) -> RequestError:
    """The error of a guide that cannot be served, in the library's words for why."""
    said = f"the {kind.replace('_', ' ')} cannot be served: {shown(kind, why)}"
    return RequestError(said, "see docs/structured.md for what can", code="unsupported")


def shown(kind: str, why: str) -> str:
    """What clients are told of the library's words; nothing of a failure of its own."""
    if "panic: " in why or "<backtrace>" in why:
        LOG.error("the grammar library failed: %s", why.partition("\n")[0])
        return FAILED
    why = why.replace("<non-verbose/>", "").strip()
    if why in ("NoExtension", "NoExtensionBias"):
        return "no text has this form, or none from here on"
    # The library shows where in the Lark text that it was given; of a schema or a regex, that is not what the client sent.
    shown = why if "grammar" in kind else re.sub(r"(?s)\n +\d+ \| .*", "", re.sub(r"^at \d+\(\d+\): ", "", why))
    return " ".join(shown.removeprefix("failed to compile JSON schema: ").split())[:500]
