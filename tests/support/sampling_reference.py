"""What a sampler has to choose, straight from the definition in `Columns`: a full sort, weights as integers, one row."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, e, log2

import numpy as np
from numpy.typing import NDArray

from triune_runtime.request import SamplingParams

Array = NDArray[np.float32]


def adjusted(
    logits: Array,
    p: SamplingParams,
    prompt: Sequence[int],
    answer: Sequence[int],
    stop: frozenset[int],
    allowed: Array | None = None,
) -> Array:
    """The scores [vocab_size] of the token after `answer`.

    Args:
        allowed: whether each token may come.
    """
    scores = logits.copy()
    for token, bias in p.logit_bias:
        scores[token] += np.float32(bias)
    if p.repetition_penalty != 1:
        for token in {*prompt, *answer}:
            penalty = np.float32(p.repetition_penalty)
            scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token in set(answer):
        scores[token] -= np.float32(p.presence_penalty) + np.float32(p.frequency_penalty) * np.float32(answer.count(token))
    for word in p.bad_words:
        if len(word) == 1 or tuple(answer[-(len(word) - 1) :]) == word[:-1]:
            scores[word[-1]] = -np.inf
    if len(answer) < p.min_tokens:
        scores[sorted(stop)] = -np.inf
    if allowed is not None:
        scores[~allowed] = -np.inf
    return scores


def chosen(logits: Array, scores: Array, p: SamplingParams, uniform: float) -> int | None:
    """The token; None where there is none to choose: `logits` or the `scores` made of them have no finite best."""
    if not np.isfinite(logits.max()) or not np.isfinite(scores.max()):  # a NaN is the highest of all
        return None
    ranked = np.lexsort((np.arange(len(scores)), -scores))
    if p.temperature == 0:
        return int(ranked[0])
    scaled = scores / np.float32(max(p.temperature, 1e-6))
    scaled = scaled - scaled.max()
    ranked = np.lexsort((np.arange(len(scores)), -scaled))
    weights = weighed(-scaled[ranked])
    kept = min(p.top_k or len(weights), int((weights > 0).sum()))
    if p.top_p < 1:
        kept = min(kept, int((np.cumsum(weights[:kept]) < ceil(p.top_p * int(weights[:kept].sum()))).sum()) + 1)
    if p.min_p > 0:
        kept = min(kept, int((weights[:kept] >= p.min_p * 2**42).sum()))
    summed = np.cumsum(weights[:kept])
    return int(ranked[min(int((summed <= int(uniform * int(summed[-1]))).sum()), kept - 1)])


def weighed(below: Array) -> NDArray[np.int64]:
    """The weight of each token, as `sampling.weights` says it: by shifts of integers, where that multiplies doubles."""
    mantissas, exponents = np.frexp(np.minimum(below, 30))
    products = (mantissas * 2**24).astype(np.int64) * round(log2(e) * 2**28)
    steps = products >> np.minimum(30 - exponents, 63)
    return (_COARSE[steps >> 11 & 2047] * (2**26 - (45426 * (steps & 2047) >> 12))) >> (10 + (steps >> 22))


_COARSE = np.array([round(2 ** (26 - i / 2048)) for i in range(2048)])
