"""Proves that checking drafts changes no bit, and compares the MTP layer with the reference. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triune_runtime.manifest import Limits, Speculation
from triune_runtime.runner import Runner, Work

from . import reference
from .measure import Logits, cut, difference, log_softmax, prefill
from .reference_deepseek import mtp_states
from .reference_parts import Scope, Tensor, Texts

_STEPS = 24  # tokens that are decoded with and without drafts
_READ = 96  # tokens of the text that the MTP layer reads


@dataclass(frozen=True, kw_only=True)
class DraftFigures:
    """What was measured of drafts."""

    checked: int  # positions decoded one by one and with drafts, right and wrong ones
    error: float  # relative difference of their logits; 0.0: the same bits
    mtp_positions: int = 0  # 0 here: no MTP layer
    mtp_error: float | None = None  # max |engine - reference| / max |reference|, both reading the engine's hidden states
    mtp_kl: float | None = None  # nats, mean


def verify_drafts(
    runner: Runner,
    speculation: Speculation,
    limits: Limits,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    text: Sequence[int],
) -> DraftFigures:
    """Decode `text` with and without drafts; run the MTP layer over it as a prompt in chunks and then token by token."""
    start = min(len(text), limits.max_length - speculation.tokens) - _STEPS
    start = max(min(start, limits.prefill_chunk), 1)
    stop = min(start + _STEPS, limits.max_length - speculation.tokens)
    plain = _decode(runner, limits, text[:stop], start)
    worst = 0.0
    for offset in range(speculation.tokens):  # drafts that are right up to each of their number, then wrong
        for position, row in _decode_checked(runner, speculation, limits, text[:stop], start, offset):
            worst = max(worst, difference(row, plain[position]))
    checked = len(plain) * speculation.tokens
    if speculation.mtp is None or runner.mtp is None:
        return DraftFigures(checked=checked, error=worst)
    read = tuple(text[: min(_READ, limits.max_length)])
    hidden, after = _read_with_mtp(runner, limits, read)
    root = Scope(weights)
    states = mtp_states(config, root, hidden, np.array(read[1:], np.int64), Texts.of([read[:-1]]))
    wanted = states @ root[reference.head_name(root)].T
    errors = [difference(got, row) for got, row in zip(after, wanted, strict=True)]
    p = log_softmax(wanted)
    kl = float(np.mean(np.sum(np.exp(p) * (p - log_softmax(np.stack(after))), -1)))
    return DraftFigures(
        checked=checked, error=worst, mtp_positions=len(after),
        mtp_error=max(errors), mtp_kl=kl,
    )  # fmt: skip


def _decode(runner: Runner, limits: Limits, text: Sequence[int], start: int) -> dict[int, Logits]:
    """Position -> logits of one-token runs from `start` on."""
    prefill(runner, 0, text[:start], limits.prefill_chunk)
    return {at: runner.run([Work(0, at, (text[at],))])[0].copy() for at in range(start, len(text))}


def _decode_checked(
    runner: Runner, speculation: Speculation, limits: Limits, text: Sequence[int], start: int, right: int
) -> list[tuple[int, Logits]]:
    """(position, logits) of runs with drafts, of which the first `right` are the text's own and the next is wrong.

    As many sequences as may be, up to three, read the same text at once.
    """
    slots = range(min(3, limits.max_sequences))
    for slot in slots:
        prefill(runner, slot, text[:start], limits.prefill_chunk)
    rows, at = [], start
    while at < len(text):
        drafts = list(text[at + 1 : at + 1 + right])
        kept = 1 + len(drafts)
        wrong = [int(runner.vocab_size - 1 - token) for token in text[at + 1 :][right : speculation.tokens - 1]]
        run = (text[at], *drafts, *wrong)
        logits = runner.run([Work(slot, at, run, len(run) - 1) for slot in slots])
        rows += [(at + i, logits[slot * len(run) + i].copy()) for slot in slots for i in range(kept)]
        at += kept
    return rows


def _read_with_mtp(runner: Runner, limits: Limits, text: Sequence[int]) -> tuple[NDArray[np.float32], list[Logits]]:
    """The engine's hidden states and the MTP layer's logits, of all positions but the last.

    The first half is read in chunks of a few tokens, the rest one by one.
    """
    assert runner.mtp is not None, "an engine without an MTP layer"
    half, states, after = len(text) // 2, [], []
    pieces = [*cut(text[:half], min(7, limits.prefill_chunk)), *((at, (text[at],)) for at in range(half, len(text) - 1))]
    for start, tokens in pieces:
        runner.run([Work(0, start, tokens)])
        _, hidden = runner.mtp.hidden(0)
        states.append(hidden.copy())
        followers = text[start + 1 : start + 1 + len(tokens)]
        for i in range(len(tokens)):  # each position's logits: the cache is written again, with the same numbers
            logits, _ = runner.mtp.predict(0, start, hidden[: i + 1], followers[: i + 1])
            after.append(logits)
    return np.concatenate(states), after
