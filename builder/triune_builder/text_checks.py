"""Checks that the server can serve a checkpoint's tokenizer and chat templates, with the server's own classes.

They come with the model, unread, so they are tried in a process of its own, within bounds of time and memory: see `text_trial`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from .errors import BuildError

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

_WAIT_S = 180.0  # the trial ends itself long before, unless it waits for something
_ENVIRONMENT = {"RUST_BACKTRACE": "0", "RAYON_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # threads reserve memory unused
_HINT = "take these files from a publisher that you trust; every published model takes a few seconds"


def check_text(checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer or a template that could not be served.

    Raises:
        BuildError: says what of them, why, and what to do about it.
    """
    vocab_size = checkpoint.config.get("vocab_size")
    job = {
        "tokenizer": checkpoint.tokenizer_json,
        "vocab_size": vocab_size if isinstance(vocab_size, int) else 0,
        "chat_template": checkpoint.chat_template,
        "tool_template": checkpoint.tool_template,
        "special_tokens": checkpoint.special_tokens,
    }
    command = [sys.executable, "-m", f"{__package__}.text_trial"]
    environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(
            command, input=json.dumps(job).encode(), capture_output=True, timeout=_WAIT_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"the tokenizer and the chat template take more than {_WAIT_S:g} s to try", _HINT) from None
    found = _report(ended.stdout)
    if found is None:
        raise BuildError(f"the tokenizer or the chat template cannot be tried: {_why(ended)}", _HINT)
    if found:
        raise BuildError(found["message"], found["hint"])


def _report(output: bytes) -> dict[str, str] | None:
    """What the trial found; None if it did not come to its end."""
    try:
        found: dict[str, str] = json.loads(output.decode().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return found


def _why(ended: subprocess.CompletedProcess[bytes]) -> str:
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    if ended.returncode == -signal.SIGXCPU:
        return "they take too much processor time"
    if ended.returncode == -signal.SIGABRT or any("memory" in line.lower() for line in said):
        return "they take too much memory"
    return f"the trial ended with {ended.returncode}" + (f": {said[-1][:300]}" if said else "")
