"""Drives an engine through its runner and keeps what it says. Knows no checkpoint and judges nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits
from triune_runtime.runner import Runner, Work

Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is run; the defaults take a few seconds for a model of 135 million weights on two cores."""

    text: int = 2048  # tokens of the evaluation texts, at most
    window: int = 256  # tokens read from an empty cache, for perplexity
    kept: int = 128  # positions of the windows whose whole logits are compared
    answer: int = 64  # greedy tokens a prompt


@dataclass(kw_only=True)
class Evidence:
    """What the engine said of one text; positions are indices into `tokens`, logits those after reading that token."""

    tokens: tuple[int, ...]
    name: str = ""  # of the text that it is a window of
    followers: tuple[int, ...] = ()  # the token that really follows each position, where perplexity is measured
    losses: list[float] = field(default_factory=list)  # -log p(follower), in nats
    chosen: dict[int, int] = field(default_factory=dict)  # position -> the engine's greedy token
    decoded: dict[int, Logits] = field(default_factory=dict)  # position -> logits of a one-token run
    prefilled: dict[int, Logits] = field(default_factory=dict)  # position -> logits of a run of many tokens

    @property
    def positions(self) -> list[int]:
        """Where a reference's logits are needed."""
        return sorted({*range(len(self.followers)), *self.chosen, *self.decoded, *self.prefilled})


def text_windows(texts: Sequence[tuple[str, Sequence[int]]], sizes: Sizes, longest: int) -> tuple[list[Evidence], int]:
    """Texts cut into windows of at most `longest` tokens, the longest first; and every how many positions logits are kept.

    Args:
        texts: kind and tokens. Each kind gets an equal share of the tokens that are read, and what others leave.
    """
    size = min(sizes.window, longest)
    windows: list[Evidence] = []
    for (name, text), count in zip(texts, _shares(texts, sizes.text), strict=True):
        read = tuple(text[: count + 1])
        windows += [
            Evidence(name=name, tokens=read[i : min(i + size, len(read) - 1)], followers=read[i + 1 : i + 1 + size])
            for i in range(0, len(read) - 1, size)
        ]
    windows.sort(key=lambda window: -len(window.tokens))
    stride = -(-sum(len(window.tokens) for window in windows) // sizes.kept)
    return windows, max(1, min([stride, *(len(window.tokens) for window in windows)]))


def _shares(texts: Sequence[tuple[str, Sequence[int]]], most: int) -> list[int]:
    """How many tokens of each text are read: the kinds that have least come first, and what they leave is for the others."""
    room: dict[str, int] = {}
    for name, text in texts:
        room[name] = room.get(name, 0) + max(len(text) - 1, 0)
    left, allowed = most, {}
    for number, name in enumerate(sorted(room, key=lambda name: room[name])):
        allowed[name] = min(room[name], left // (len(room) - number))
        left -= allowed[name]
    shares = []
    for name, text in texts:
        shares.append(min(max(len(text) - 1, 0), allowed[name]))
        allowed[name] -= shares[-1]
    return shares


def read_windows(runner: Runner, limits: Limits, texts: Sequence[tuple[str, Sequence[int]]], sizes: Sizes) -> list[Evidence]:
    """Decode `texts` with teacher forcing, cut into windows, as many windows at once as there are slots."""
    windows, stride = text_windows(texts, sizes, limits.max_length)
    for first in range(0, len(windows), limits.max_sequences):
        wave = windows[first : first + limits.max_sequences]  # the longest first, so live slots are 0..n-1
        for position in range(len(wave[0].tokens)):
            live = [w for w in wave if position < len(w.tokens)]
            logits = runner.run([Work(slot, position, (w.tokens[position],)) for slot, w in enumerate(live)])
            for window, row in zip(live, logits, strict=True):
                window.losses.append(-log_softmax(row)[window.followers[position]])
                if position % stride == stride - 1:
                    window.decoded[position] = row.copy()
    return windows


def answer_prompts(runner: Runner, limits: Limits, prompts: Sequence[Sequence[int]], sizes: Sizes) -> list[Evidence]:
    """Continue every prompt greedily, one batch of slots after the other; the prompts are cut to half of a slot."""
    starts = [tuple(p[: limits.max_length // 2]) for p in prompts]
    count = min(sizes.answer, limits.max_length - max(map(len, starts)))
    answers = []
    for first in range(0, len(starts), limits.max_sequences):
        wave = [Evidence(tokens=p) for p in starts[first : first + limits.max_sequences]]
        for slot, evidence in enumerate(wave):
            ends = prefill(runner, slot, evidence.tokens, limits.prefill_chunk)
            last = len(evidence.tokens) - 1
            evidence.prefilled[last] = ends[last]
            evidence.chosen[last] = int(ends[last].argmax())
        for _ in range(count - 1):
            for evidence in wave:
                evidence.tokens += (evidence.chosen[len(evidence.tokens) - 1],)
            work = [Work(slot, len(e.tokens) - 1, e.tokens[-1:]) for slot, e in enumerate(wave)]
            for evidence, row in zip(wave, runner.run(work), strict=True):
                evidence.chosen[len(evidence.tokens) - 1] = int(row.argmax())
        answers += wave
    return answers


def batch_errors(runner: Runner, limits: Limits, texts: Sequence[Sequence[int]]) -> list[float]:
    """Relative difference of each row between a sequence decoded alone and among others; 0.0 means the same bits.

    The batch shrinks by one sequence a step, so every batch size is seen; each sequence ends with its text's last tokens.
    """
    texts = texts[: limits.max_sequences]
    steps = [min(len(texts) - slot, len(text) - 1) for slot, text in enumerate(texts)]
    steps = [min(steps[: slot + 1]) for slot in range(len(steps))]  # live slots stay 0..n-1
    starts = [len(text) - n for text, n in zip(texts, steps, strict=True)]
    for slot, (text, start) in enumerate(zip(texts, starts, strict=True)):
        prefill(runner, slot, text[:start], limits.prefill_chunk)
    together: list[list[Logits]] = [[] for _ in texts]
    for step in range(max(steps)):
        live = [slot for slot in range(len(texts)) if step < steps[slot]]
        logits = runner.run([Work(s, starts[s] + step, (texts[s][starts[s] + step],)) for s in live])
        for slot, row in zip(live, logits, strict=True):
            together[slot].append(row.copy())
    errors = []
    for slot, (text, start) in enumerate(zip(texts, starts, strict=True)):
        prefill(runner, 0, text[:start], limits.prefill_chunk)
        for step, row in enumerate(together[slot]):
            alone = runner.run([Work(0, start + step, (text[start + step],))])[0]
            errors.append(difference(row, alone))
    return errors


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """One long prompt read in several ways."""

    evidence: Evidence
    repeat_error: float  # the same chunks again, in another slot with other work between them; 0.0: the same bits
    cut_error: float  # other chunks


def read_chunks(runner: Runner, limits: Limits, tokens: Sequence[int]) -> Chunks:
    """Prefill two and a half chunks of `tokens`: plainly, among other work, and in smaller chunks."""
    size = limits.prefill_chunk
    tokens = tuple(tokens[: min(limits.max_length, 2 * size + size // 2 or 1)])
    plain = prefill(runner, 0, tokens, size)
    other = Work(0, 0, tokens[:3])
    crowded: dict[int, Logits] = {}
    for start, chunk in cut(tokens, size):
        work = [Work(limits.max_sequences - 1, start, chunk)] + ([other] if limits.max_sequences > 1 else [])
        crowded[start + len(chunk) - 1] = runner.run(work)[0].copy()
    smaller = prefill(runner, 0, tokens, max(1, size * 3 // 8))
    last = len(tokens) - 1
    return Chunks(
        evidence=Evidence(tokens=tokens, prefilled={**smaller, **plain}),
        repeat_error=max(difference(crowded[end], row) for end, row in plain.items()),
        cut_error=difference(smaller[last], plain[last]),
    )


def prefill(runner: Runner, slot: int, tokens: Sequence[int], size: int) -> dict[int, Logits]:
    """Read `tokens` into `slot` in chunks of `size`; logits at the last position of each chunk."""
    return {start + len(chunk) - 1: runner.run([Work(slot, start, chunk)])[0].copy() for start, chunk in cut(tokens, size)}


def cut(tokens: Sequence[int], size: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(start, chunk) of every chunk of `size` tokens."""
    return ((start, tuple(tokens[start : start + size])) for start in range(0, len(tokens), size))


def difference(a: Logits, b: Logits) -> float:
    """max |a - b| / max |b|; 0.0 only for equal bits, infinite where either is not a number."""
    if np.array_equal(a, b):
        return 0.0
    value = float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(b))), 1e-30))
    return max(value, 5e-324) if np.isfinite(value) else float("inf")


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Natural logarithm of the probabilities, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))
