"""Compares the network that TensorRT made of a graph with the reference: prompts, further chunks, ragged decoding."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits

from ...verify.comparison import Source, Told, compare
from ...verify.measure import Evidence, difference, log_softmax
from ...verify.texts import evaluation_ids, texts_of
from ...verify.verification import Note, Verification

LEFT_OUT = (
    "the network that TensorRT parsed was computed in NumPy over short texts, with every value rounded as declared; the engine "
    "itself was not run: `make verify TARGET=tensorrt` does on a machine that has the GPU"
)
_TEXTS = 4  # sequences that decode as a batch
_LONGEST = 56  # tokens of the first; the others are shorter, so that the batch is ragged
_SHORTER = 5
_DECODED = 12  # of each, token by token


class Network(Protocol):
    """See `network_runner.NetworkRunner`."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def best_errors(self) -> int | None: ...
    def run(self, first: int, ids: list[list[int]], starts: list[int], logits: list[int]) -> NDArray[np.float32]: ...
    def forget(self, first: int, stop: int) -> None: ...


@dataclass(frozen=True)
class _Plan:
    """How texts are read."""

    texts: list[Evidence]
    chunk: int
    decoded: int


def verify_network(runner: Network, limits: Limits, checkpoint: Source, *, note: Note = lambda _: None) -> Verification:
    """Read pieces of the evaluation texts in chunks and then token by token, all positions compared with the reference.

    Raises:
        BuildError: the reference does not know the architecture.
    """
    began = time.monotonic()
    texts = evaluation_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification))
    tokens = [token for _, text in texts for token in text]
    plan = _plan(tokens, limits)
    note("the parsed network, prompts in chunks")
    runner.forget(0, len(plan.texts))
    for slot, text in enumerate(plan.texts):
        for start in range(0, len(text.tokens) - plan.decoded, plan.chunk):
            stop = min(start + plan.chunk, len(text.tokens) - plan.decoded)
            rows = runner.run(slot, [list(text.tokens[start:stop])], [start], list(range(stop - start)))[0]
            _keep(text, start, rows, text.prefilled)
    note("the parsed network, decoding")
    alone = 0.0
    for step in range(plan.decoded):
        starts = [len(t.tokens) - plan.decoded + step for t in plan.texts]
        ids = [[t.tokens[start]] for t, start in zip(plan.texts, starts, strict=True)]
        rows = runner.run(0, ids, starts, [0])
        for slot, (text, start, row) in enumerate(zip(plan.texts, starts, rows, strict=True)):
            _keep(text, start, row, text.decoded)
            if step == plan.decoded - 1:
                alone = max(alone, difference(runner.run(slot, ids[slot : slot + 1], [start], [0])[0, 0], row[0]))
    cut = _other_chunks(runner, plan)
    told = Told(
        evidence=plan.texts,
        answers=plan.texts,
        read=plan.texts,
        batch_error=alone,
        chunk_error=cut,
        best_errors=runner.best_errors,
        left_out=LEFT_OUT,
        seconds=time.monotonic() - began,
    )
    return compare(told, checkpoint, note)


def _plan(tokens: list[int], limits: Limits) -> _Plan:
    longest = min(_LONGEST, limits.max_length)
    decoded = min(_DECODED, longest // 2)
    texts: list[Evidence] = []
    begin = 0
    for number in range(min(_TEXTS, limits.max_sequences)):
        size = max(longest - number * _SHORTER, decoded + 1)
        piece = tokens[begin : begin + size + 1]
        texts.append(Evidence(tokens=tuple(piece[:-1]), followers=tuple(piece[1:])))
        begin += size
    return _Plan(texts, min(32, limits.prefill_chunk), decoded)


def _keep(text: Evidence, start: int, rows: NDArray[np.float32], where: dict[int, NDArray[np.float32]]) -> None:
    for position, row in enumerate(rows, start):
        text.losses.append(-log_softmax(row)[text.followers[position]])
        text.chosen[position] = int(row.argmax())
        where[position] = row.copy()


def _other_chunks(runner: Network, plan: _Plan) -> float:
    """The difference that another way of cutting the first prompt makes to the logits after its first chunk."""
    text, size = plan.texts[0], min(plan.chunk, len(plan.texts[0].tokens) - plan.decoded)
    if size < 2:
        return 0.0
    first = size * 3 // 8 or 1
    runner.run(0, [list(text.tokens[:first])], [0], [first - 1])
    row = runner.run(0, [list(text.tokens[first:size])], [first], [size - first - 1])[0, 0]
    return difference(row, text.prefilled[size - 1])
