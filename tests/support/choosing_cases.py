"""Rows of logits and all that can be asked of them, at random: to hold one way of choosing tokens against another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from triune_runtime.sampling.columns import Columns, Sites

Random = np.random.Generator
Array = NDArray[np.float32]


def peaks(random: Random, size: int) -> Array:
    """As a language model's: a bulk, and a few tokens that stand out."""
    row = random.standard_normal(size, np.float32) * np.float32(2.2)
    ranks = np.arange(1, min(64, size) + 1)
    row[random.choice(size, len(ranks), replace=False)] = 20 - random.uniform(0.5, 4) * np.log(ranks)
    return row


def _coarse(random: Random, size: int) -> Array:
    """Of a model that computes in bfloat16: many are equal."""
    row = random.standard_normal(size, np.float32) * np.float32(random.uniform(0.5, 8))
    return (row.view(np.uint32) & 0xFFFF0000).view(np.float32)


def _banned(random: Random, size: int) -> Array:
    row = peaks(random, size)
    row[random.random(size) < random.choice([0.1, 0.9, 0.999])] = -np.inf
    return row


def _spoiled(random: Random, size: int) -> Array:
    row = peaks(random, size)
    row[random.integers(0, 12, 3)] = random.choice(np.float32([np.nan, np.inf, 3e38, 3e38, 3e38]))
    return row


def _zeros(random: Random, size: int) -> Array:
    """Zeros of both signs are the best, or all."""
    row = -np.abs(random.standard_normal(size, np.float32)) * random.choice(np.float32([1, 0, 1e-40]))
    zeros = random.random(size) < 0.5
    row[zeros] = random.choice(np.float32([0, -0.0]), zeros.sum())
    return row


def _spread(random: Random, size: int) -> Array:
    with np.errstate(over="ignore"):
        scale = np.float32(10.0 ** random.uniform(-42, 38))
        return random.standard_normal(size, np.float32) * scale + np.float32(random.choice([0, 0, 1, -300, 1e6]))


def _flat(random: Random, size: int) -> Array:
    return np.full(size, random.choice(np.float32([-3, 0, 7, -np.inf, 1e30])), np.float32)


ROWS: tuple[Callable[[Random, int], Array], ...] = (
    peaks, peaks, lambda random, size: random.standard_normal(size, np.float32) * np.float32(random.uniform(0.01, 6)),
    _coarse, _coarse, _banned, _spoiled, _zeros, _spread, _flat,
)  # fmt: skip


def _values(random: Random, rows: int, off: float, *choices: float) -> NDArray[np.float64]:
    """Of each row `off`, or one of `choices`."""
    return np.where(random.random(rows) < 0.5, off, random.choice(choices, rows))


def _sites(random: Random, rows: NDArray[np.int64], size: int, most: int, values: tuple[float, ...], same: bool) -> Sites:
    parts = [random.integers(0, random.choice([12, size]), random.integers(1, most + 1)) for _ in rows]
    parts = [part if same else np.unique(part) for part in parts]
    tokens = np.concatenate([np.empty(0, np.int64), *parts])
    return Sites(np.repeat(rows, [len(part) for part in parts]), tokens, random.choice(values, len(tokens)).astype(np.float32))


def cases(seed: int, size: int, rows: int, count: int, *, logits: bool = True) -> Iterator[tuple[Array, Columns]]:
    """`count` steps: logits [rows, size], or none, and columns of these rows."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        made = [ROWS[random.integers(len(ROWS))](random, size) for _ in range(rows if logits else 0)]
        greedy = random.random(rows) < 0.2
        penal = np.flatnonzero(random.random(rows) < 0.25)
        biased, banned, masked = (np.flatnonzero(random.random(rows) < 0.15) for _ in range(3))
        adjusted = np.zeros(rows, np.bool_)
        adjusted[np.concatenate([penal, biased, banned, masked])] = True
        share = random.choice([0.001, 0.5, 0.999], len(masked))
        allowed = random.random((len(masked), (size + 31) // 32 * 32)) < share[:, None]
        yield (
            np.array(made, np.float32),
            Columns(
                temperature=np.where(greedy, 0, random.choice([1e-7, 0.01, 0.3, 0.6, 1, 1, 1.7, 50, 1000], rows)).astype(
                    np.float32
                ),
                top_k=_values(random, rows, 0, 1, 2, 20, 100, size // 2, size - 1, size).astype(np.int32),
                top_p=_values(random, rows, 1, 0, 1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 1 - 2.0**-53),
                min_p=_values(random, rows, 0, 1e-12, 0.001, 0.05, 0.5, 1),
                repetition=_values(random, rows, 1, 0.01, 0.7, 1.1, 1.3, 100).astype(np.float32),
                presence=_values(random, rows, 0, 0.5, 2, -1.3).astype(np.float32),
                frequency=_values(random, rows, 0, 0.1, 2, -0.7).astype(np.float32),
                seed=random.integers(0, 2**64, rows, np.uint64),
                position=random.integers(0, 2 ** random.integers(1, 40), rows),
                logprobs=np.full(rows, -1, np.int32),
                forced=np.where(random.random(rows) < 0.05, random.integers(0, size, rows), -1),
                greedy=greedy,
                adjusted=adjusted,
                biases=_sites(random, biased, size, 40, (-100, -1, 0.1, 5, 100), True),
                seen=_sites(random, penal, size, min(size, 5000), (0, 1, 2, 7), False),
                bans=_sites(random, banned, size, 10, (-np.inf,), True),
                masked=masked,
                masks=np.packbits(allowed, axis=1, bitorder="little").view(np.uint32),
            ),
        )
