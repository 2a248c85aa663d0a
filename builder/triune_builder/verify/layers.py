"""Compares an engine that is not loaded as a whole with the reference: prompts only, some of its weights at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits

from .comparison import Source, Told, compare
from .measure import Evidence, Sizes, log_softmax, text_windows
from .texts import evaluation_ids, texts_of
from .verification import Note, Verification

LEFT_OUT = (
    "the engine was run a few weights at a time, over prompts; decoding token by token, sequences in batches and prompts in "
    "chunks were not run"
)


class Scored(Protocol):
    """Logits [len(positions), vocab] after some tokens of text number `text`."""

    @property
    def text(self) -> int: ...
    @property
    def positions(self) -> NDArray[np.int64]: ...
    @property
    def logits(self) -> NDArray[np.float32]: ...


class Pieces(Protocol):
    """An engine that runs without being loaded as a whole."""

    def capacity(self) -> int:
        """Tokens that a text may have."""
        ...

    def run(self, texts: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Iterator[Scored]:
        """Logits of `texts` (token ids) at `positions` of each, a few at a time."""
        ...


@np.errstate(all="ignore")  # as in `verify`
def verify_layers(
    pieces: Pieces, limits: Limits, checkpoint: Source, *, sizes: Sizes | None = None, note: Note = lambda _: None
) -> Verification:
    """Read the evaluation texts with the engine, window by window, then with the reference.

    Its greedy tokens are those that the engine would choose after each token of the text.

    Raises:
        BuildError: the reference does not know the architecture.
    """
    began, sizes = time.monotonic(), sizes or Sizes()
    texts = evaluation_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification))
    windows, stride = text_windows(texts, sizes, min(limits.max_length, pieces.capacity()))
    note("the engine, a few weights at a time")
    for scored in pieces.run([w.tokens for w in windows], [range(len(w.tokens)) for w in windows]):
        _keep(windows[scored.text], scored, stride)
    told = Told(
        evidence=windows, answers=windows, read=windows, decoded=False, left_out=LEFT_OUT, seconds=time.monotonic() - began
    )
    return compare(told, checkpoint, note)


def _keep(window: Evidence, scored: Scored, stride: int) -> None:
    for position, row in zip(scored.positions.tolist(), scored.logits, strict=True):
        window.losses.append(-log_softmax(row)[window.followers[position]])
        window.chosen[position] = int(row.argmax())
        if position % stride == stride - 1:
            window.prefilled[position] = row.copy()
