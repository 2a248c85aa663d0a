"""The other process of `elsewhere`, of a Python that may be older: 3.10.

Reads what is asked from its standard input until that is closed; what anything else prints goes to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DeviceLost, TriuneError
from ...manifest import EngineManifest
from ...runner import Runner, Want, Work
from .elsewhere import receive, send
from .runner import tensorrt_runner


def main(described: str, folder: str) -> None:
    """Serve the engine in `folder`; its engine.json is in `described`."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING)
    try:
        runner: Any = tensorrt_runner(EngineManifest.load(Path(described)), Path(folder))
        known = {"vocab_size": runner.vocab_size, "chooses": sorted(runner.chooses), "cache_bytes": runner.cache_bytes}
        send(answers, known, ())
        while (asked := receive(sys.stdin.buffer)) is not None:
            said, arrays = done(runner, asked[0])
            send(answers, said, arrays)
    except (TriuneError, DeviceLost) as error:
        hint = getattr(error, "hint", None)
        send(answers, {"error": str(error.args[0]), "hint": hint, "kind": type(error).__name__}, ())


def done(runner: Runner, asked: dict[str, Any]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """What one call gives."""
    if asked["do"] == "copy":
        runner.copy_slot(*asked["slots"])  # type: ignore[attr-defined]  # of a slot runner
        return {}, []
    work = [Work(slot, start, tuple(tokens), drafts, Want(want)) for slot, start, tokens, drafts, want in asked["work"]]
    made = runner.run_rows(work)
    wanted = np.repeat([item.wants is Want.LOGITS or made.best is None for item in work], [item.rows for item in work])
    arrays: list[NDArray[Any]] = [made.logits if wanted.all() else made.logits[wanted]]
    if made.best is not None:
        arrays += [made.best.tokens, made.best.logits]
    return {"best": made.best is not None}, arrays
