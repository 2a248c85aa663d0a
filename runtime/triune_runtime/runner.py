"""The seam between the runtime and whatever computes logits: what a step asks for, and what comes of it. Values and protocols.

A step is launched and collected: between the two, a runner that works beside the host (`depth` 1) computes while the next step
is planned. Launches run one after the other, in their order, each after its own `orders`: so memory that a launch is told to
use may be what an earlier one still reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .sampling.columns import Columns


class Want(IntEnum):
    """What of an item's rows is asked for."""

    NOTHING = 0  # a part of a prompt: nothing leaves the device
    TOKEN = 1  # the token that the runner chooses itself
    LOGITS = 2


class Work(NamedTuple):
    """Run `tokens` of the sequence in `slot`, whose first `start` tokens are already in the KV cache.

    Rows are made after the last token, and after each of the `drafts` tokens before it. The last `drafts` tokens may be taken
    back: the next `start` in the slot is then smaller.
    """

    slot: int
    start: int
    tokens: tuple[int, ...]
    drafts: int = 0
    wants: Want = Want.LOGITS
    fed: bool = False  # its last token is the one that the launch before chooses for this slot; what stands there is no token
    scored: bool = False  # rows are made after each of its tokens, and none is taken back: of runners that `score`

    @property
    def rows(self) -> int:
        """How many rows are made."""
        return len(self.tokens) if self.scored else 1 + self.drafts


class Copy(NamedTuple):
    """Copy the KV of the first `length` tokens of slot `source` to slot `target`, whose own is not needed any more."""

    source: int
    target: int
    length: int


class Table(NamedTuple):
    """The KV of slot `slot` lies in these blocks from now on, in this order: of runners whose memory is paged."""

    slot: int
    blocks: tuple[int, ...]


class CopyBlock(NamedTuple):
    """Copy block `source` to block `target`: before a sequence writes into a block that others read."""

    source: int
    target: int


Order = Copy | Table | CopyBlock  # what KV memory must do before a launch's work


@dataclass(frozen=True, slots=True)
class Best:
    """The token that the runner chose for each row of a launch, and that token's logit."""

    tokens: NDArray[np.int64]  # [rows]; of items that want LOGITS the token with the highest one
    logits: NDArray[np.float32]  # [rows]; not finite: the row's logits are no numbers


@dataclass(frozen=True, slots=True)
class Rows:
    """What a launch made: of each item in turn its `rows`, the last of them after its last token."""

    logits: NDArray[np.float32]  # [rows, vocab_size]; with `best`, of items that want LOGITS alone: others hold anything
    best: Best | None = None  # None: the runner chooses no tokens


class Flight(Protocol):
    """A step that is being computed."""

    def collect(self) -> Rows:
        """Wait until it is computed. Valid until the launch after the next."""
        ...


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


class Runner(Protocol):
    """Computes logits and owns the KV memory; decides nothing."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def mtp(self) -> Mtp | None:
        """The layer that guesses further tokens, if the engine has one. `Copy` orders copy its KV too."""
        ...

    @property
    def depth(self) -> int:
        """Launches that may be in flight while the next one is planned: 0, or 1."""
        ...

    @property
    def chooses(self) -> frozenset[str]:
        """What of sampling it does itself: "greedy", and options by their names in `SamplingParams`. Empty: nothing."""
        ...

    @property
    def scores(self) -> bool:
        """Whether it takes work that is `scored`: log probabilities of prompts are served then."""
        ...

    def warm_up(self) -> None:
        """Called once, on the thread that will step, before the first launch: what is recorded there belongs to that thread."""
        ...

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = (), columns: Columns | None = None) -> Flight:
        """Carry out `orders`, then run `work`.

        Args:
            columns: how the tokens of items that want a TOKEN are chosen, one row an item; None: the best ones.
        """
        ...

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """Launch `work` and collect it: for whoever has nothing to do meanwhile."""
        ...

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """The logits of `run_rows`."""
        ...

    def close(self) -> None:
        """Give everything back; nothing is in flight."""
        ...


@runtime_checkable
class Shrinking(Protocol):
    """Of a runner that can give memory of slots back to the system, and gets it again when it is written."""

    def give_back(self, slot: int, length: int) -> None:
        """Nobody needs what lies in `slot` behind its first `length` tokens. Between two launches, none in flight."""
        ...


@dataclass(frozen=True, slots=True)
class Landed:
    """A flight that is over: of runners that compute while they are launched."""

    rows: Rows

    def collect(self) -> Rows:
        return self.rows


class Immediate:
    """What runners share that compute while they are launched: they bring `run` or `run_rows`, and `copy_slot`."""

    mtp: Mtp | None = None
    depth = 0
    chooses: frozenset[str] = frozenset()
    scores = False

    def warm_up(self) -> None:
        """See `Runner.warm_up`: nothing to do."""

    def launch(self, work: Sequence[Work], orders: Sequence[Order] = (), columns: Columns | None = None) -> Flight:
        """See `Runner.launch`."""
        for order in orders:
            assert isinstance(order, Copy), f"{order} is for paged memory; this runner's lies in slots"
            self.copy_slot(*order)
        return Landed(self.run_rows(work))

    def run_rows(self, work: Sequence[Work]) -> Rows:
        """See `Runner.run_rows`."""
        return Rows(self.run(work))

    def run(self, work: Sequence[Work]) -> NDArray[np.float32]:
        """Logits [rows, vocab_size]: of each item in turn its `rows`, the last of them after its last token."""
        raise NotImplementedError

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens' KV from slot `source` to slot `target`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Runner.close`: nothing to give back."""
