"""What may come next in an answer, written into vLLM's logits: Triune's own grammars, and the end of its thinking.

Runs in vLLM's processes, those that sample. It is told of a request what `asking` puts into `extra_args`, and of its tokens by
vLLM. The other side follows the same grammar and ends the answer: here a state in which nothing may come is left as it is,
since vLLM cannot sample from nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...constraints import Constraint
from ...constraints.bits import words
from ...constraints.compiling import ConstraintCompiler
from ...manifest import EngineManifest
from ...request import Request, SamplingParams
from ...text.reasoning import ThinkingLimit
from ...text.tokenizer import load_token_bytes

ENGINE = "TRIUNE_VLLM_ENGINE"  # of the environment: the folder of the engine
EXTRA = "triune"  # key of `extra_args`
_PATIENCE_S = (
    6.0  # of a step, for all grammars: the other side gives an answer up before, and an engine that stands still later
)


class Forms:
    """Makes the forms of requests to one engine."""

    def __init__(self, folder: Path) -> None:
        self._manifest = EngineManifest.load(folder)
        self._token_bytes = load_token_bytes(folder, self._manifest)
        self._compiler = ConstraintCompiler(self._manifest, self._token_bytes)

    def make(self, said: Mapping[str, Any]) -> Form:
        """The form of an answer.

        Args:
            said: see `asking`.
        """
        guide, budget, opened = said["guide"], said["budget"], bool(said["thinking_open"])
        constraint, limit = None, None
        if guide is not None:
            params = SamplingParams(stop_token_ids=tuple(said["stops"]))
            request = Request(
                key=0, prompt=tuple(said["tail"]), params=params, thinking_open=opened, continues=bool(said["continues"])
            )
            constraint = self._compiler.make((guide[0], guide[1]), request)
        if budget is not None and self._manifest.reasoning is not None:
            limit = ThinkingLimit(self._manifest.reasoning, self._token_bytes, opened=opened, budget=budget)
        return Form(constraint, limit)


class Form:
    """What may come next in one answer."""

    def __init__(self, constraint: Constraint | None, limit: ThinkingLimit | None) -> None:
        self._constraint, self._limit = constraint, limit

    def push(self, token: int) -> None:
        """Take in the answer's next token."""
        if self._limit is not None:
            self._limit.push(token)
        if self._constraint is not None and not self._constraint.finished and not self._constraint.error:
            self._constraint.push(token)

    def settle(self, until: float) -> None:
        """Wait until it is known what may come next, at most until `until` (`time.monotonic`)."""
        if self._constraint is not None:
            self._constraint.settle(until)

    def floors(self, size: int) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """What is added to the logits [size] of the next token: 0 where it may come, else minus infinity; None: any may."""
        if self._limit is not None and (forced := self._limit.forced()) is not None:
            floors = np.full(size, -np.inf, np.float32)
            floors[forced] = 0
            return floors
        if self._constraint is None or not self._constraint.active:
            return None
        bits = np.zeros(words(size), np.uint32)
        self._constraint.allowed(bits)
        may = np.unpackbits(bits.view(np.uint8), bitorder="little")[:size]
        return np.where(may, 0, -np.inf).astype(np.float32) if may.any() else None


class Followed:
    """A form, and the tokens of its answer as vLLM keeps them: a list that grows, at whose end some may not be known yet."""

    def __init__(self, form: Form, tokens: Sequence[int]) -> None:
        self._form, self._tokens, self._taken = form, tokens, 0

    def catch_up(self) -> None:
        """Take in what has come."""
        while self._taken < len(self._tokens) and (token := self._tokens[self._taken]) >= 0:
            self._form.push(token)
            self._taken += 1

    def write(self, logits: Any, until: float) -> None:
        """Change a row of logits, a tensor [vocabulary]; for what may come next is waited until `until`."""
        self._form.settle(until)
        if (floors := self._form.floors(logits.shape[-1])) is not None:
            logits.add_(logits.new_tensor(floors))


def write(rows: Sequence[tuple[Followed, Any]]) -> None:
    """Change rows of logits, each by its form. Their grammars work beside one another."""
    for followed, _ in rows:
        followed.catch_up()
    until = time.monotonic() + _PATIENCE_S
    for followed, logits in rows:
        followed.write(logits, until)


@cache
def forms() -> Forms:
    """Those of the engine that this process serves."""
    return Forms(Path(os.environ[ENGINE]))
