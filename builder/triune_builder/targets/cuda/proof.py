"""Compares a CUDA engine's graph with the reference: packed prompts, chunks beside decoding, blocks in no order."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits

from ...errors import BuildError
from ...verify.comparison import Source, Told, compare
from ...verify.measure import Evidence, difference, log_softmax
from ...verify.texts import evaluation_ids, texts_of
from ...verify.verification import Note, Verification
from .network_runner import Item

LEFT_OUT = (
    "the engine's graph was computed in NumPy over short texts, with every value rounded as it says; the engine itself was not "
    "run: `make verify TARGET=cuda` does on a machine that has a GPU"
)
_TEXTS = 4  # sequences that run together
_LONGEST = 56  # tokens of the first; the others are shorter, so that steps are ragged
_SHORTER = 5
_DECODED = 12  # of each, token by token
_CHUNK = 24  # tokens of a prompt that one step reads
_APART = 0.2  # of the largest logit, half of the positions at most: two graphs that round differently are less apart


class Network(Protocol):
    """See `network_runner.NetworkRunner`."""

    def run(self, items: list[Item]) -> list[NDArray[np.float32]]: ...
    def foreign_untouched(self) -> bool: ...


def verify_network(runner: Network, limits: Limits, checkpoint: Source, *, note: Note = lambda _: None) -> Verification:
    """Read pieces of the evaluation texts, all positions compared with the reference.

    Every text begins a step after the one before it: so steps have prompts, further chunks and single tokens beside each other.

    Raises:
        BuildError: the reference does not know the architecture.
    """
    began = time.monotonic()
    texts = evaluation_ids(checkpoint.tokenizer_json, texts_of(checkpoint.verification))
    evidence = _pieces([token for _, text in texts for token in text], limits)
    note("the graph, prompts and decoding together")
    decoded = min(_DECODED, len(evidence[-1].tokens) // 2)
    schedules = [_schedule(len(text.tokens), decoded) for text in evidence]
    together: dict[int, NDArray[np.float32]] = {}
    for step in range(max(map(len, schedules)) + len(evidence) - 1):
        planned = [
            (lane, *schedules[lane][step - lane]) for lane in range(len(evidence)) if 0 <= step - lane < len(schedules[lane])
        ]
        items = [Item(lane, start, evidence[lane].tokens[start:stop]) for lane, start, stop in planned]
        for item, rows in zip(items, runner.run(items), strict=True):
            _keep(evidence[item.lane], item, rows)
            together[item.lane] = rows[-1]
    alone = max(_alone(runner, lane, text, together[lane]) for lane, text in enumerate(evidence))
    cut = _other_chunks(runner, evidence[0], spare=len(evidence))
    assert runner.foreign_untouched(), "a step wrote where nothing was its own"
    told = Told(
        evidence=evidence,
        answers=evidence,
        read=evidence,
        batch_error=alone,
        chunk_error=cut,
        left_out=LEFT_OUT,
        seconds=time.monotonic() - began,
    )
    return compare(told, checkpoint, note)


def check_alike(runners: Iterable[Network], vocab_size: int, limits: Limits) -> None:
    """Make sure that several graphs of an engine compute the same: two prompts packed, then a chunk beside a decode.

    Raises:
        BuildError: they do not.
    """
    longest = min(_CHUNK, limits.max_length) - 1
    tokens = tuple(int(t) for t in np.random.default_rng(5).integers(0, vocab_size, longest + 1))
    cut = longest // 2
    steps = [
        [Item(0, 0, tokens[:longest]), Item(1, 0, tokens[:cut])],
        [Item(0, longest, tokens[longest:]), Item(1, cut, tokens[cut:])],
    ]
    first: list[NDArray[np.float32]] = []
    for runner in runners:
        rows = [row for items in steps for found in runner.run(items) for row in found]
        first = first or rows
        # Another rounding may choose other experts for a token, whatever an engine computes; a wrong op shows everywhere.
        apart = float(np.median([difference(row, same) for row, same in zip(rows, first, strict=True)]))
        if not apart < _APART:
            raise BuildError(
                f"the engine's graphs with and without custom ops compute logits that are {apart:.2g} of the largest apart",
                "this is a fault of the lowering: report it with the model's config.json",
            )


def _pieces(tokens: list[int], limits: Limits) -> list[Evidence]:
    longest = min(_LONGEST, limits.max_length)
    found: list[Evidence] = []
    begin = 0
    for number in range(min(_TEXTS, limits.max_sequences)):
        size = max(longest - number * _SHORTER, 2)
        piece = tokens[begin : begin + size + 1]
        found.append(Evidence(tokens=tuple(piece[:-1]), followers=tuple(piece[1:])))
        begin += size
    return found


def _schedule(length: int, decoded: int) -> list[tuple[int, int]]:
    """(start, stop) of each step of a text: chunks of its prompt, then single tokens."""
    prompt = length - decoded
    chunks = [(start, min(start + _CHUNK, prompt)) for start in range(0, prompt, _CHUNK)]
    return chunks + [(start, start + 1) for start in range(prompt, length)]


def _keep(text: Evidence, item: Item, rows: NDArray[np.float32]) -> None:
    where = text.decoded if len(item.tokens) == 1 else text.prefilled
    for position, row in enumerate(rows, item.start):
        text.losses.append(-log_softmax(row)[text.followers[position]])
        text.chosen[position] = int(row.argmax())
        where[position] = row.copy()


def _alone(runner: Network, lane: int, text: Evidence, row: NDArray[np.float32]) -> float:
    """The difference that it makes to the last token's logits that others were in the step."""
    last = len(text.tokens) - 1
    (rows,) = runner.run([Item(lane, last, text.tokens[last:])])
    return difference(rows[-1], row)


def _other_chunks(runner: Network, text: Evidence, spare: int) -> float:
    """The difference that other chunks, in other blocks, make to the logits after a prompt's first two chunks."""
    size = max(position for position in text.prefilled) + 1
    if size < 2:
        return 0.0
    first = size * 3 // 8 or 1
    runner.run([Item(spare, 0, text.tokens[:first])])
    (rows,) = runner.run([Item(spare, first, text.tokens[first:size])])
    return difference(rows[-1], text.prefilled[size - 1])
