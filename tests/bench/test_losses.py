"""What a model loses on texts, one by one and as two benchmarks tell it. Run: pytest tests/bench/test_losses.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bench.losses import token_losses

from bench import cache_accuracy, rounding
from fakes.tiny_dense import dense_checkpoint
from triune_builder.verify import reference

CHECKPOINT: Any = dense_checkpoint("llama")
TEXT = [int(token) for token in np.random.default_rng(3).integers(1, CHECKPOINT.config["vocab_size"], 300)]


def test_each_token_but_the_first_loses_what_the_row_before_it_says() -> None:
    windows = [TEXT[:3], TEXT[3:5], TEXT]  # the last has more than one block of the reference's
    found = token_losses(CHECKPOINT.config, CHECKPOINT.weights, windows)
    for ids, lost in zip(windows, found, strict=True):
        blocks = reference.score(CHECKPOINT.config, CHECKPOINT.weights, [ids[:-1]])
        rows = np.concatenate([block.logits for block in blocks]).astype(np.float64)
        expected = [np.log(np.exp(row).sum()) - row[after] for row, after in zip(rows, ids[1:], strict=True)]
        assert lost == pytest.approx(expected, rel=1e-5)


def test_both_benchmarks_tell_the_same_of_the_same_windows() -> None:
    texts = {"all": TEXT, "some": TEXT[:100]}
    told = rounding.losses(CHECKPOINT, CHECKPOINT.weights, texts)
    for kind, ids in texts.items():
        windows = [part for i in range(0, len(ids) - 1, 256) if (part := ids[i : i + 257])]
        lost = cache_accuracy.losses(CHECKPOINT, windows, lambda layer, part, x: x)
        assert len(lost) == len(ids) - 1 and told[kind] == pytest.approx(lost.mean(), rel=1e-5)


def test_what_is_attended_to_instead_changes_what_is_lost() -> None:
    plain, changed = (
        cache_accuracy.losses(CHECKPOINT, [TEXT[:50]], lambda layer, part, x, factor=factor: x * factor)  # type: ignore[misc]
        for factor in (1.0, 0.5)
    )
    assert plain[0] != changed[0] and not np.allclose(plain, changed)
    assert np.array_equal(plain, cache_accuracy.losses(CHECKPOINT, [TEXT[:50]], lambda layer, part, x: x))
