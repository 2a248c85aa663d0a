"""Examples as tokens, packed whole into rows; blocks of rows made by worker processes, in a fixed order.

A block is a pure function of (recipe, seed, block number), whoever makes it: a resumed run reads on where it stopped.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from .examples import Example
from .problems import example
from .recipe import DataRecipe
from .tokenizer import END_THINK, EOS, PAD_ID, prompt_text

_TRACE = "0123456789+-*/=?<>:()r\n"  # all a trace is written with; each character is one token
_BATCH = 256  # examples tokenized at once
_INDICES = 1 << 20  # example numbers a block may use
_QUEUED = 6  # blocks a worker makes ahead
_TOKENS_AN_EXAMPLE = 64  # a block holds at most one example for so many of its tokens, on average


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Rows of packed examples; all arrays but the last are [rows, row_tokens]."""

    tokens: NDArray[np.int16]
    targets: NDArray[np.int16]  # the next token where it is learned, else -1
    later_targets: NDArray[np.int16]  # the one after the next, for the MTP layer, else -1
    positions: NDArray[np.int16]  # within the example
    ends: NDArray[np.int32]  # [n + 1]: 0 and each example's end in the flattened rows; padded with the last end
    learned: int  # targets that are learned


class Encoder:
    """Examples -> tokens, exactly as the tokenizer would, but traces by a table."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._table = np.zeros(128, np.int16)
        for character in _TRACE:
            (self._table[ord(character)],) = tokenizer.encode(character, add_special_tokens=False).ids

    def encode(self, examples: list[Example]) -> list[tuple[NDArray[np.int16], int]]:
        """For each example its tokens and how many of them are the prompt, which is not learned."""
        texts = []
        for drawn in examples:
            texts.append(prompt_text(drawn.messages, thinks=drawn.thinks))
            answer = f"{END_THINK}\n\n{drawn.answer}{EOS}" if drawn.thinks else f"{drawn.answer}{EOS}"
            texts.append(f"{drawn.thinking}{answer}" if drawn.task == "chat" else answer)
        encoded = [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        rows = []
        for drawn, prompt, answer_ids in zip(examples, encoded[::2], encoded[1::2], strict=True):
            trace = self.encode_trace("" if drawn.task == "chat" else drawn.thinking)
            unlearned = len(prompt) + (len(trace) + 2 if drawn.is_cut else 0)  # a cut thought and its forced end
            rows.append((np.concatenate((np.array(prompt, np.int16), trace, np.array(answer_ids, np.int16))), unlearned))
        return rows

    def encode_trace(self, trace: str) -> NDArray[np.int16]:
        return self._table[np.frombuffer(trace.encode("ascii"), np.uint8)]


def make_block(encoder: Encoder, recipe: DataRecipe, seed: int, number: int, rows: int) -> Block:
    """The block of this number: as many examples as fit, each whole in one row."""
    length = recipe.row_tokens
    tokens = np.full((rows, length), PAD_ID, np.int16)
    targets = np.full((rows, length), -1, np.int16)
    later = np.full((rows, length), -1, np.int16)
    positions = np.zeros((rows, length), np.int16)
    free = [length] * rows
    ends: list[int] = []
    count = np.arange(length, dtype=np.int16)
    index = number * _INDICES
    most = rows * length // _TOKENS_AN_EXAMPLE
    open_rows = list(range(rows))
    while open_rows:
        batch = [example(seed, "train", index + i, recipe) for i in range(_BATCH)]
        index += _BATCH
        for ids, unlearned in encoder.encode(batch):
            size = len(ids)
            row = next((r for r in open_rows if free[r] >= size), -1)
            if size > recipe.longest_tokens:
                continue
            if row < 0 or len(ends) + rows == most:
                open_rows.clear()
                break
            start = length - free[row]
            tokens[row, start : start + size] = ids
            first = max(unlearned - 1, 0)
            targets[row, start + first : start + size - 1] = ids[first + 1 :]
            later[row, start + first : start + size - 2] = ids[first + 2 :]
            positions[row, start : start + size] = count[:size]
            ends.append(row * length + start + size)
            free[row] -= size
            if free[row] < 24:
                open_rows.remove(row)
    for row in range(rows):  # the padding of a row is an example of its own, which nothing is learned from
        positions[row, length - free[row] :] = count[: free[row]]
        ends.append((row + 1) * length)
    bounds = np.full(most + 1, rows * length, np.int32)
    bounds[0] = 0
    ordered = np.unique(np.array(ends, np.int32))
    bounds[1 : len(ordered) + 1] = ordered
    return Block(
        tokens=tokens, targets=targets, later_targets=later, positions=positions, ends=bounds, learned=int((targets >= 0).sum())
    )


class Blocks:
    """The blocks from a number on, made ahead by worker processes; without workers, made when asked for."""

    def __init__(self, tokenizer_json: str, recipe: DataRecipe, *, seed: int, rows: int, first: int, workers: int) -> None:
        self._arguments = (tokenizer_json, recipe, seed, rows)
        self._next = first
        self._encoder = Encoder(Tokenizer.from_str(tokenizer_json)) if workers == 0 else None
        self.waited_s = 0.0  # how long `next` had nothing to give
        context = multiprocessing.get_context("spawn")
        self._queues: list[Any] = [context.Queue(_QUEUED) for _ in range(workers)]
        self._processes = [
            context.Process(target=_work, args=(queue, *self._arguments, first + i, workers), daemon=True)
            for i, queue in enumerate(self._queues)
        ]
        for process in self._processes:
            process.start()
        self._first = first

    def next(self) -> Block:
        number, self._next = self._next, self._next + 1
        if self._encoder is not None:
            _, recipe, seed, rows = self._arguments
            return make_block(self._encoder, recipe, seed, number, rows)
        start = time.monotonic()
        block: Block = self._queues[(number - self._first) % len(self._queues)].get(timeout=120)
        self.waited_s += time.monotonic() - start
        return block

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()


def _work(queue: Any, tokenizer_json: str, recipe: DataRecipe, seed: int, rows: int, number: int, stride: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoder = Encoder(Tokenizer.from_str(tokenizer_json))
    parent = os.getppid()
    while os.getppid() == parent:
        queue.put(make_block(encoder, recipe, seed, number, rows))
        number += stride
