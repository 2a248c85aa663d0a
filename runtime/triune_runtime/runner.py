"""The seam between the runtime and whatever computes logits: ONNX Runtime, TensorRT, or the fake for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Work:
    """Run `tokens` of the sequence in `slot`, whose first `start` tokens are already in the KV cache.

    Logits are wanted after the last token, and after each of the `drafts` tokens before it. The last `drafts` tokens may be
    taken back: the next `start` in the slot is then smaller.
    """

    slot: int
    start: int
    tokens: tuple[int, ...]
    drafts: int = 0
    logits: bool = True  # False: its logits will not be read; the best tokens are enough where a runner finds them


@dataclass(frozen=True, slots=True)
class Best:
    """The highest logit of each row of a run and its token, as the engine found them."""

    tokens: NDArray[np.int64]  # [rows]
    logits: NDArray[np.float32]  # [rows]; not finite: the row's logits are no numbers


@dataclass(frozen=True, slots=True)
class Rows:
    """What a run made: of each item in turn, 1 + `drafts` rows, the last of them after its last token."""

    logits: NDArray[np.float32]  # [rows, vocab_size]; with `best`, of items with `Work.logits` alone: others hold anything
    best: Best | None = None  # None: the engine finds no tokens


class Mtp(Protocol):
    """A layer of multi-token prediction: guesses tokens from what the model made of those before. Has KV slots of its own."""

    def hidden(self, slot: int) -> tuple[int, NDArray[np.float32]]:
        """Of the latest run in `slot`: its `start`, and what the model made of each token [tokens, hidden size]."""
        ...

    def predict(
        self, slot: int, start: int, hidden: NDArray[np.float32], tokens: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits [vocab_size] of the token after the last of `tokens`, and [1, hidden size] to guess a further one from.

        Args:
            start: how many positions the slot holds already; later ones are overwritten.
            hidden: [len(tokens), hidden size] of the positions before `tokens`, the model's or this method's own.
        """
        ...

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions' KV from slot `source` to slot `target`."""
        ...


class Runner(Protocol):
    """Computes logits and owns the KV slots' memory; decides nothing."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def mtp(self) -> Mtp | None:
        """The layer that guesses further tokens, if the engine has one."""
        ...

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [rows, vocab_size]: of each item in turn, 1 + `drafts` rows, the last of them after its last token.

        Items of one token in neighbouring slots run as one batch; longer ones run one by one. A sequence's logits are the
        same bits whatever else is in `work`, and with drafts as without where the manifest has `speculation`.
        """
        ...

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens' KV from slot `source` to slot `target`."""
        ...


@runtime_checkable
class BestFinder(Protocol):
    """What a runner also is if its engine finds best tokens itself, so that their logits need not leave the device."""

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """See `Runner.run`: the same run."""
        ...


def run_rows(runner: Runner, work: Sequence[Work]) -> Rows:
    """Run `work`, with the best tokens where `runner` finds them."""
    return runner.run_rows(work) if isinstance(runner, BestFinder) else Rows(runner.run(work))
