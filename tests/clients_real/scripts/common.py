"""What every script here shares: where the server is, and its result as the last line of its output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

ADDRESSES: dict[str, str] = json.loads(os.environ.get("ADDRESSES", "{}"))
FRANCE = "The capital of France is"
QUESTION = "What is the capital of France?"


def main(*functions: Callable[[], Any]) -> None:
    """Run the function that the command line names."""
    (chosen,) = (function for function in functions if function.__name__ == sys.argv[1])
    print(json.dumps(chosen()))
