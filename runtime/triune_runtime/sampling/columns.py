"""By what the next token of every row of a step is chosen: plain arrays, alike for the host and for a device."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sites:
    """A value for single tokens of single rows; rows ascend."""

    rows: Indices  # [sites]
    tokens: Indices  # [sites]
    values: NDArray[np.float32]  # [sites]

    def __len__(self) -> int:
        return len(self.rows)

    def bounds(self, rows: int) -> Indices:
        """Where the sites of each of `rows` rows begin and where the last ones end [rows + 1]."""
        return np.searchsorted(self.rows, np.arange(rows + 1))

    def take(self, rows: Indices) -> Sites:
        """The sites of `rows`, which become rows 0, 1, ..."""
        first, stop = np.searchsorted(self.rows, rows), np.searchsorted(self.rows, rows, side="right")
        at = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)] or [np.empty(0, np.int64)])
        return Sites(np.repeat(np.arange(len(rows)), stop - first), self.tokens[at], self.values[at])


@dataclass(frozen=True, slots=True)
class Columns:
    """Of each row of a step what decides its next token, in the order in which it counts.

    1. `biases` are added to the logits. 2. Penalties: the score of a token in `seen` is divided by `repetition` where it is
    above 0, else multiplied; then, where its count is not 0, `presence` + `frequency` x count is taken off. 3. `bans`, and all
    tokens without a bit in the row's mask, get minus infinity. 4. Greedy rows take the best, of equal ones the lowest id.
    5. Others: scores / temperature, weighed (`weights`), ranked by score and id; the `top_k` best; of these as many as reach
    `top_p`; of these those at least `min_p` times as likely as the best; drawn by the uniform number of (seed, position).
    6. What is `forced` comes whatever was chosen.
    """

    temperature: NDArray[np.float32]  # [rows]; 0: greedy
    top_k: NDArray[np.int32]  # [rows]; 0: off
    top_p: NDArray[np.float64]  # [rows]; 1: off. Double, as a client's JSON has it: 0.95 as float32 cuts elsewhere
    min_p: NDArray[np.float64]  # [rows]; 0: off
    repetition: NDArray[np.float32]  # [rows]; 1: off
    presence: NDArray[np.float32]  # [rows]; 0: off
    frequency: NDArray[np.float32]  # [rows]; 0: off
    seed: NDArray[np.uint64]  # [rows]
    position: Indices  # [rows]; how many tokens of the answer come before the one to be chosen
    logprobs: NDArray[np.int32]  # [rows]; how many best tokens' log probabilities are wanted beside the chosen one's; -1: none
    forced: Indices  # [rows]; -1: none
    greedy: NDArray[np.bool_]  # [rows]
    adjusted: NDArray[np.bool_]  # [rows]; whether step 1, 2 or 3 changes anything
    biases: Sites
    seen: Sites  # values: how often in the answer; 0: in the prompt alone
    bans: Sites  # values: minus infinity
    masked: Indices  # the rows with a mask, ascending
    masks: NDArray[np.uint32]  # [masked rows, words]; bit t % 32 of word t // 32: whether token t may come

    def __len__(self) -> int:
        return len(self.temperature)

    @property
    def plain(self) -> NDArray[np.bool_]:
        """Which rows [rows] want the best token of their logits as they are, and no log probabilities."""
        return self.greedy & ~self.adjusted & (self.logprobs < 0)

    def take(self, rows: Indices) -> Columns:
        """The columns of `rows`, which become rows 0, 1, ...: those that a runner leaves to the host."""
        masked = np.flatnonzero(np.isin(rows, self.masked))
        masks = self.masks[np.searchsorted(self.masked, rows[masked])]
        values = {
            name: getattr(self, name) for name in (field.name for field in fields(self)) if name not in ("masked", "masks")
        }
        return Columns(**{name: value.take(rows) for name, value in values.items()}, masked=masked, masks=masks)
